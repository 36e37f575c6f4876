# SPDX-License-Identifier: GPL-2.0
# What the benchmarks have as endpoints; they source this, and define fail().

# hello FOLDER PORT...: one nginx that answers "hello" on these ports, and 1 MiB to /mib, in the background.
hello() {
	local dir=$1 listen
	shift
	head -c 1M /dev/zero >"$dir/mib"
	listen=$(printf 'listen 127.0.0.1:%s backlog=4096; ' "$@")
	cat >"$dir/nginx.conf" <<-END
		daemon off; worker_processes 1; pid $dir/nginx.pid; error_log stderr error; user root;
		events { worker_connections 20000; }
		http {
		  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
		  client_body_temp_path $dir; proxy_temp_path $dir; fastcgi_temp_path $dir; uwsgi_temp_path $dir; scgi_temp_path $dir;
		  server { $listen location / { return 200 "hello\n"; } location = /mib { alias $dir/mib; } }
		}
	END
	nginx -p "$dir" -e stderr -c "$dir/nginx.conf" &
}

# answer PORT...: waits until each does, and fails when one does not.
answer() {
	local port
	for port; do
		for _ in $(seq 100); do curl -s -o /dev/null "127.0.0.1:$port/" && break; sleep 0.1; done
		curl -sS "127.0.0.1:$port/" | grep -q hello || fail "nothing answers on port $port"
	done
}
