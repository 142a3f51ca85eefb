# More than a gigabyte of files in five layers, for the benchmarks: compilers, scientific Python, a database.
base
layer common 'install ca-certificates curl netbase tzdata'
layer compilers 'install build-essential clang golang-go'
layer science 'install python3-numpy python3-scipy python3-matplotlib python3-pandas'
layer database 'install postgresql'
image '{
  "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
  "Cmd": ["python3", "-c", "import numpy, pandas; print(pandas.DataFrame(numpy.eye(3)))"]
}'
