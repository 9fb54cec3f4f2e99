//! One running proxy: how it is found, started on its cores, checked, measured and ended.
//!
//! Every process starts pinned, in a directory of its own, and is told by the kernel to end when the harness ends.
//! `Peer` ends exactly the processes that it started, by pid.

use super::scenario::{Chain, Contestant, Scenario};
use super::template::{self, Values};
use crate::process::{Usage, tree};
use anyhow::{Context, Result, anyhow, bail};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the peers' programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The gateway.
    pub ringway: PathBuf,
    /// Its plugins.
    pub plugins_dir: PathBuf,
    /// The Pingora peer.
    pub pingora: PathBuf,
    /// Changed templates.
    pub peers_dir: Option<PathBuf>,
}

/// A process that was started here, and what it started.
pub struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// Starts `command` pinned to `cores`, writing to `log`.
    pub fn spawn(mut command: Command, cores: &[usize], log: &Path) -> Result<Started> {
        let set = crate::machine::core_set(cores);
        let file = File::create(log).with_context(|| format!("creating {log:?}"))?;
        let errors = file.try_clone().with_context(|| format!("opening {log:?} twice"))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let pin = move || {
            // SAFETY: `set` is valid for reads of its own size; sched_setaffinity is a bare system call.
            let outcome = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
            crate::net::check(outcome)?;
            // SAFETY: prctl(PR_SET_PDEATHSIG) takes numbers only.
            crate::net::check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) }).map(drop)
        };
        // SAFETY: between fork and exec the closure makes two system calls and neither allocates nor takes locks.
        unsafe { command.pre_exec(pin) };
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("starting {program:?}"))?;
        Ok(Started { child, log: log.to_owned() })
    }

    /// It and its descendants.
    pub fn pids(&self) -> Vec<u32> {
        tree(self.child.id())
    }

    /// Why it ended already, with the last lines that it wrote; `None` while it runs.
    pub fn death(&mut self) -> Option<anyhow::Error> {
        let status = self.child.try_wait().ok()??;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" | ");
        Some(anyhow!("it ended with {status}: {last}"))
    }

    /// The rest of the first line of its output that begins with `prefix`, once it was written.
    pub fn wait_for_line(&mut self, prefix: &str) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n')
                && let Some(rest) = line.strip_prefix(prefix)
            {
                return Ok(rest.trim().to_owned());
            }
            if let Some(death) = self.death() {
                return Err(death);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("it did not write {prefix:?} within 5 s")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let pids = self.pids();
        let signal = |pid: u32, signal: i32| {
            // SAFETY: kill(2) takes numbers; the pids are of this child, which is not reaped yet, and its descendants.
            unsafe { libc::kill(pid as libc::pid_t, signal) };
        };
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), libc::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if matches!(self.child.try_wait(), Ok(None)) {
                pids.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
                let _ = self.child.wait();
            }
        }
    }
}

/// A proxy that takes part.
pub struct Peer {
    /// Who it is.
    pub contestant: Contestant,
    /// Where it listens.
    pub address: SocketAddr,
    /// The processes, absent for `direct`.
    started: Option<Started>,
    pids: Vec<u32>,
}

impl Peer {
    /// Starts a contestant of a scenario and waits until it answers.
    pub fn launch(contestant: Contestant, scenario: &Scenario, origin: SocketAddr, cores: &[usize], programs: &Programs, dir: &Path) -> Result<Peer> {
        if contestant.peer == "direct" {
            return Ok(Peer { contestant, address: origin, started: None, pids: Vec::new() });
        }
        fs::create_dir_all(dir).with_context(|| format!("creating {dir:?}"))?;
        let port = crate::net::free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let values = Values {
            port,
            origin,
            dir,
            plugins_dir: &programs.plugins_dir,
            short_bytes: scenario.short_circuit.then_some(scenario.body_bytes),
            cores,
            contestant,
        };
        let command = command(&values, scenario, programs)?;
        let mut started = Started::spawn(command, cores, &dir.join("output.log"))?;
        wait_until_ready(&mut started, address)?;
        let pids = started.pids();
        Ok(Peer { contestant, address, started: Some(started), pids })
    }

    /// What it used so far.
    pub fn usage(&self) -> Usage {
        Usage::read(&self.pids)
    }

    /// Looks for processes again; the set may change while a peer warms up, not while it is measured.
    pub fn refresh(&mut self) -> Result<()> {
        if let Some(started) = &mut self.started {
            if let Some(death) = started.death() {
                return Err(death);
            }
            self.pids = started.pids();
        }
        Ok(())
    }
}

fn wait_until_ready(started: &mut Started, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(death) = started.death() {
            return Err(death);
        }
        if crate::net::connect(address, Duration::from_millis(200)).is_ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("it did not listen on {address} within 15 s");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The command that runs a contestant, its configuration written.
fn command(values: &Values, scenario: &Scenario, programs: &Programs) -> Result<Command> {
    let configured = |program: &Path, template_name: &str| -> Result<(Command, PathBuf)> {
        let text = template::render(&template::load(template_name, programs.peers_dir.as_deref())?, values)?;
        let file = values.dir.join(template_name);
        fs::write(&file, text).with_context(|| format!("writing {file:?}"))?;
        Ok((Command::new(program), file))
    };
    let workers = values.contestant.workers.to_string();
    let peer = values.contestant.peer;
    Ok(match peer {
        "nginx" | "nginx-256k" => {
            let (mut command, file) = configured(&find_program("nginx")?, "nginx.conf")?;
            command.arg("-e").arg("stderr").arg("-p").arg(values.dir).arg("-c").arg(file);
            command
        }
        "haproxy-http" | "haproxy-tcp" | "haproxy-splice" => {
            let name = if peer == "haproxy-http" { "haproxy-http.cfg" } else { "haproxy-tcp.cfg" };
            let (mut command, file) = configured(&find_program("haproxy")?, name)?;
            command.arg("-db").arg("-f").arg(file);
            command
        }
        "envoy" | "envoy-lua" => {
            let (mut command, file) = configured(&find_program("envoy")?, "envoy.yaml")?;
            command.args(["--concurrency", &workers, "--disable-hot-restart", "--log-level", "error", "-c"]).arg(file);
            command
        }
        "relay" => {
            // 16 KiB lets small messages stay in the first cache; large bodies need fewer calls.
            let buffer_kib = if scenario.body_bytes >= 64 << 10 { "256" } else { "16" };
            let mut command = Command::new(std::env::current_exe().context("finding this program")?);
            command.args(["relay", "--listen", &format!("127.0.0.1:{}", values.port)]);
            command.args(["--to", &values.origin.to_string(), "--buffer-kib", buffer_kib, "--workers", &workers]);
            let cores: Vec<String> = values.cores.iter().map(usize::to_string).collect();
            command.args(["--cores", &cores.join(",")]);
            command
        }
        "pingora" => {
            if !programs.pingora.is_file() {
                bail!("{:?} is not there; `--pingora PATH` names it, pingora-peer/README.md says how it is built", programs.pingora);
            }
            let mut command = Command::new(&programs.pingora);
            command.args([format!("127.0.0.1:{}", values.port), values.origin.to_string(), workers]);
            command
        }
        "ringway" | "ringway-chunk" | "ringway-respond" => {
            if !programs.ringway.is_file() {
                bail!("{:?} is not there; `--ringway PATH` names the gateway's binary", programs.ringway);
            }
            check_plugins(values.contestant.chain, &programs.plugins_dir)?;
            let (mut command, file) = configured(&programs.ringway, "ringway.toml")?;
            command.args(["run", "-c"]).arg(file);
            command
        }
        other => bail!("{other:?} is not a peer"),
    })
}

fn check_plugins(chain: Chain, dir: &Path) -> Result<()> {
    for (_, file) in template::chain(chain) {
        let path = dir.join(format!("{file}.so"));
        if !path.is_file() {
            bail!("the plugin {path:?} is not there; `--plugins-dir DIR` names the directory of the built plugins");
        }
    }
    Ok(())
}

/// Looks a program up in PATH and where system programs are installed.
fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed"))
}

/// The first line that a peer says about its version.
pub fn version(peer: &str, programs: &Programs) -> Option<String> {
    let (program, argument) = match peer {
        "nginx" | "nginx-256k" => (find_program("nginx").ok()?, "-v"),
        "haproxy-http" | "haproxy-tcp" | "haproxy-splice" => (find_program("haproxy").ok()?, "-v"),
        "envoy" | "envoy-lua" => (find_program("envoy").ok()?, "--version"),
        "pingora" => (programs.pingora.clone(), "--version"),
        "ringway" | "ringway-chunk" | "ringway-respond" => (programs.ringway.clone(), "--version"),
        _ => return Some(format!("ringway-bench {}", env!("CARGO_PKG_VERSION"))),
    };
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    // Envoy prints its own path before its version.
    let line = String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty())?.to_owned();
    Some(line.rsplit_once("version: ").map_or(line.clone(), |(_, version)| version.to_owned()))
}
