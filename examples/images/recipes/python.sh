# A Python application the way most are shipped: a distribution, what every image needs, the interpreter, the
# application. Four layers; the last replaces a file of another and deletes one, as applications do.
base
layer common 'install ca-certificates curl netbase tzdata'
layer python 'install python3 python3-pip python3-setuptools'
layer app '
  mkdir /app
  cat >/app/hello.py <<END
import json, platform, urllib.request

print(json.dumps({"hello": "world", "python": platform.python_version()}))
END
  echo "A Python application" >/etc/motd
  rm -r /usr/share/doc/curl
'
image '{
  "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
  "WorkingDir": "/app",
  "Cmd": ["python3", "/app/hello.py"]
}'
