import {describeLayers} from './describe-layers.ts'

describeLayers(2)
