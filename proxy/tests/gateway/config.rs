//! Configurations as text, put together from the parts that a test cares about.

/// A configuration in the making: one worker, one listener on a free port, not pinned, so that tests can run beside each other.
pub struct Config {
    server: String,
    listener: String,
    rest: String,
}

/// One listener, one worker, nothing else.
pub fn config() -> Config {
    Config { server: "workers = 1\npin_workers = false\n".into(), listener: "address = \"127.0.0.1:0\"\n".into(), rest: String::new() }
}

impl Config {
    /// More lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Config {
        self.server += lines;
        self.server.push('\n');
        self
    }

    /// Other workers than one.
    pub fn workers(mut self, count: usize) -> Config {
        self.server = format!("workers = {count}\npin_workers = false\n");
        self
    }

    /// Instead of the listener on a free port.
    pub fn listen(mut self, address: &str) -> Config {
        self.listener = format!("address = \"{address}\"\n");
        self
    }

    /// Any text behind the listener: sections of limits, timeouts, routes.
    pub fn with(mut self, text: &str) -> Config {
        self.rest += text;
        self.rest.push('\n');
        self
    }

    /// An upstream `app` with these servers, and the route that leads everything to it.
    pub fn to(self, servers: &[&str]) -> Config {
        self.upstream("app", servers, "").with("[[route]]\nupstream = \"app\"\n")
    }

    /// An upstream; `lines` are more of its keys, and its sub-tables.
    pub fn upstream(self, name: &str, servers: &[&str], lines: &str) -> Config {
        self.with(&format!("[[upstream]]\nname = \"{name}\"\nservers = {servers:?}\n{lines}\n"))
    }

    /// A plugin of `target/plugins`; `lines` are more of its keys, and its `[plugin.config]`.
    pub fn plugin(self, name: &str, lines: &str) -> Config {
        let path = super::plugin(name);
        self.with(&format!("[[plugin]]\nname = \"{name}\"\npath = {:?}\n{lines}\n", path.display().to_string()))
    }

    /// The text.
    pub fn text(&self) -> String {
        format!("[server]\n{}\n[[listener]]\n{}\n{}", self.server, self.listener, self.rest)
    }
}
