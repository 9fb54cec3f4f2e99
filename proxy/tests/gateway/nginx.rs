//! nginx of the distribution, with a configuration of its own in a temporary folder.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Client, Memory, eventually, memory_of, tool};

/// A running nginx without a master process; killed when dropped.
pub struct Nginx {
    child: Child,
    pub address: String,
    pub folder: TempDir,
}

impl Nginx {
    /// An origin: `/` answers 200 with `hello`, `/echo` answers with the request body in the header `x-body` and its size in the
    /// body, `/files/` takes PUT and serves what was put there.
    pub fn origin() -> Nginx {
        Nginx::start(|address| {
            format!(
                "server {{
                    listen {address} backlog=4096;
                    keepalive_requests 1000000;
                    client_max_body_size 0;
                    location = / {{ default_type text/plain; return 200 \"hello\\n\"; }}
                    location /api/ {{ default_type text/plain; return 200 \"api $request_uri\\n\"; }}
                    location = /echo {{
                        client_body_buffer_size 1m;
                        add_header x-body $request_body always;
                        proxy_pass http://unix:sink.sock:/;
                    }}
                    location /files/ {{ root .; dav_methods PUT DELETE; client_body_buffer_size 64k; }}
                }}
                server {{
                    listen unix:sink.sock;
                    client_body_buffer_size 1m;
                    location / {{ default_type text/plain; return 200 \"$request_method $http_content_length\\n\"; }}
                }}"
            )
        })
    }

    /// A proxy in front of `upstream` (`HOST:PORT`), as the gateway is one: the measure beside it.
    pub fn proxy(upstream: &str) -> Nginx {
        Nginx::start(|address| {
            format!(
                "upstream app {{ server {upstream}; keepalive 64; }}
                server {{
                    listen {address} backlog=4096;
                    keepalive_timeout 600s;
                    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
                }}"
            )
        })
    }

    fn start(servers: impl Fn(&str) -> String) -> Nginx {
        let program = tool("nginx", "apt-get install -y nginx-light");
        let folder = tempfile::tempdir().unwrap();
        for name in ["files", "body", "proxy", "other"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        // It runs as root in containers and may have been packaged for another user; the folder is the test's own.
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log warn; worker_rlimit_nofile 20000;
            events {{ worker_connections 16000; }}
            http {{
                access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path other; uwsgi_temp_path other; scgi_temp_path other;
                {}
            }}",
            servers(&address).replace("unix:sink.sock", &format!("unix:{}/sink.sock", folder.path().display()))
        );
        fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let child = Command::new(program)
            .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Nginx { child, address, folder };
        eventually("nginx listens", || {
            if let Some(status) = nginx.child.try_wait().unwrap() {
                panic!("nginx ended with {status}: {}", fs::read_to_string(nginx.folder.path().join("error.log")).unwrap_or_default());
            }
            Client::try_connect(&nginx.address).is_ok()
        });
        nginx
    }

    pub fn memory(&self) -> Memory {
        memory_of(self.child.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
