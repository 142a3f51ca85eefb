import {describeLayers} from './describe-layers.ts'

describeLayers(1)
