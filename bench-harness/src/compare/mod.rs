//! The comparison: peers with equal configurations, short slices in turn, many rounds.
//!
//! Order of a scenario: start everyone, check an answer byte by byte, then rounds of one slice each, then rows. Peers idle
//! while another is measured, so a disturbance of the machine hits neighbours in time and ratios within a round survive it.
//! `scenario` says what, `peer` starts who, `slice` measures, `stats` and `summary` compute, `rows` stores.

mod check;
mod peer;
pub mod rows;
mod scenario;
mod slice;
pub mod stats;
pub mod summary;
mod template;

use crate::load::{End, OPEN_LOOP_SLICE, Plan, request_bytes};
use crate::machine::{Machine, Placement};
use anyhow::{Context, Result, bail};
use clap::Args;
use peer::{Peer, Programs, Started};
use rows::{Run, Skipped};
#[cfg(test)]
pub use scenario::all as all_scenarios;
use scenario::{Contestant, Pace, Scenario};
use slice::SliceSettings;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use summary::Collected;

/// Options of `ringway-bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Scenarios by name, separated by commas; `--list` shows them
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Peers by name or family (haproxy, envoy, nginx), separated by commas; ringway itself always takes part
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds: how many slices each peer gets in a scenario
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Measured length of a slice
    #[arg(long, default_value_t = 500)]
    slice_ms: u64,
    /// Unmeasured load before each slice
    #[arg(long, default_value_t = 150)]
    warm_up_ms: u64,
    /// A few scenarios, short slices; ends within two minutes
    #[arg(long)]
    quick: bool,
    /// Write the rows here, and the details beside them
    #[arg(long)]
    json: Option<PathBuf>,
    /// The gateway's binary
    #[arg(long, default_value = "target/release/ringway")]
    ringway: PathBuf,
    /// Where its built plugins are
    #[arg(long, default_value = "target/plugins")]
    plugins_dir: PathBuf,
    /// The Pingora peer, built as pingora-peer/README.md says
    #[arg(long, default_value = "bench-harness/pingora-peer/target/release/pingora-peer")]
    pingora: PathBuf,
    /// Changed copies of the peers' templates
    #[arg(long)]
    peers_dir: Option<PathBuf>,
    /// List the scenarios and end
    #[arg(long)]
    list: bool,
}

/// How long `--quick` may measure; starting and ending peers comes on top.
const QUICK_LIMIT: Duration = Duration::from_secs(90);

/// The request of every scenario: eight header fields, as a client of an API sends them.
const FIELDS: [&str; 7] = [
    "User-Agent: ringway-bench/1",
    "Accept: application/json, text/plain;q=0.9, */*;q=0.8",
    "Accept-Language: en-GB,en;q=0.9",
    "Authorization: Bearer 0123456789abcdef0123456789abcdef",
    "X-Request-Id: 5f0c1a52-7a3e-4f0e-9b1d-2f6c8e4d7a90",
    "Cookie: session=0123456789abcdef; theme=dark",
    "Cache-Control: no-cache",
];

/// Runs the comparison, prints the table, stores the result.
pub fn run_command(args: &CompareArgs) -> Result<()> {
    let scenarios = selected(args)?;
    if args.list {
        for scenario in scenarios {
            println!("{:16} {}", scenario.name, scenario.shows);
        }
        return Ok(());
    }
    let run = Comparison::new(args)?.run(&scenarios)?;
    if let Some(file) = &args.json {
        eprintln!("stored {} rows in {}", run.details.len(), file.display());
    }
    println!("{}", crate::report::markdown(&run.rows(), Some(&run)));
    if run.details.is_empty() {
        bail!("nothing was measured; the reasons are listed above");
    }
    Ok(())
}

/// The scenarios and contestants that were asked for.
fn selected(args: &CompareArgs) -> Result<Vec<Scenario>> {
    let mut scenarios = scenario::all();
    let unknown = args.scenario.iter().find(|name| !scenarios.iter().any(|scenario| scenario.name == **name));
    if let Some(name) = unknown {
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {name:?}; there are: {}", names.join(", "));
    }
    if !args.scenario.is_empty() {
        scenarios.retain(|scenario| args.scenario.iter().any(|name| name == scenario.name));
    } else if args.quick {
        scenarios.retain(|scenario| scenario.quick);
    }
    let is_asked_for = |peer: &str, asked: &str| peer == asked || peer.split('-').next() == Some(asked);
    let everyone: Vec<&str> = scenario::all().iter().flat_map(|one| one.contestants.clone()).map(|one| one.peer).collect();
    if let Some(name) = args.peers.iter().find(|name| !everyone.iter().any(|peer| is_asked_for(peer, name))) {
        let mut names = everyone;
        names.sort_unstable();
        names.dedup();
        bail!("there is no peer {name:?}; there are: {}", names.join(", "));
    }
    if !args.peers.is_empty() {
        for scenario in &mut scenarios {
            // The gateway is what peers are compared with, and the added latency is measured against `direct`: both always take part.
            let is_ours = |peer: &str| peer == "direct" || is_asked_for(peer, "ringway");
            scenario.contestants.retain(|one| is_ours(one.peer) || args.peers.iter().any(|asked| is_asked_for(one.peer, asked)));
        }
    }
    scenarios.retain(|scenario| scenario.contestants.iter().any(|one| one.peer != "direct"));
    Ok(scenarios)
}

struct Comparison {
    programs: Programs,
    placement: Placement,
    dir: PathBuf,
    origin: Started,
    origin_address: SocketAddr,
    rounds: usize,
    slice: Duration,
    warm_up: Duration,
    /// When `--quick` must have ended measuring.
    deadline: Option<Instant>,
    /// Where the result is stored after every scenario, so that an interrupted run keeps what it has.
    json: Option<PathBuf>,
    run: Run,
}

impl Comparison {
    fn new(args: &CompareArgs) -> Result<Comparison> {
        crate::machine::raise_file_limit();
        let machine = Machine::read()?;
        let placement = Placement::choose(&machine.cores)?;
        let dir = std::env::temp_dir().join(format!("ringway-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {dir:?}"))?;
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["origin", "--listen", "127.0.0.1:0"]);
        let mut origin = Started::spawn(command, &[placement.origin], &dir.join("origin.log"))?;
        let origin_address = origin.wait_for_line("origin listening on ").context("starting the origin")?;
        // The observer of this thread must never take time from the core of the peer.
        crate::machine::pin_thread(placement.load)?;
        let (slice_ms, warm_up_ms) = if args.quick { (args.slice_ms.min(150), 50) } else { (args.slice_ms, args.warm_up_ms) };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let run = Run {
            tool: format!("ringway-bench {}", env!("CARGO_PKG_VERSION")),
            machine,
            placement: placement.clone(),
            rounds: args.rounds,
            slice_ms,
            warm_up_ms,
            versions: Vec::new(),
            request_head: String::from_utf8_lossy(&request("/0")?).into_owned(),
            skipped: Vec::new(),
            details: Vec::new(),
        };
        Ok(Comparison {
            programs: Programs {
                ringway: absolute(&args.ringway),
                plugins_dir: absolute(&args.plugins_dir),
                pingora: absolute(&args.pingora),
                peers_dir: args.peers_dir.clone(),
            },
            placement,
            dir,
            origin,
            origin_address: origin_address.parse().context("reading the origin's address")?,
            rounds: args.rounds.max(1),
            slice: Duration::from_millis(slice_ms.max(10)),
            warm_up: Duration::from_millis(warm_up_ms),
            deadline: args.quick.then(|| Instant::now() + QUICK_LIMIT),
            json: args.json.clone(),
            run,
        })
    }

    fn run(mut self, scenarios: &[Scenario]) -> Result<Run> {
        for (index, scenario) in scenarios.iter().enumerate() {
            eprintln!("[{}/{}] {}: {}", index + 1, scenarios.len(), scenario.name, scenario.shows);
            let now = Instant::now();
            let left = scenarios.len() - index;
            let until = self.deadline.map(|deadline| now + deadline.saturating_duration_since(now) / left as u32);
            self.run_scenario(scenario, until)?;
            self.note_versions();
            if let Some(file) = &self.json {
                self.run.store(file)?;
            }
        }
        Ok(self.run.clone())
    }

    /// Asks each peer that has a row for its version.
    fn note_versions(&mut self) {
        let mut names: Vec<String> = self.run.details.iter().map(|detail| detail.row.peer.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let version = |name: String| Some((name.clone(), peer::version(&name, &self.programs)?));
        self.run.versions = names.into_iter().filter(|name| name != "direct").filter_map(version).collect();
    }

    fn run_scenario(&mut self, scenario: &Scenario, until: Option<Instant>) -> Result<()> {
        let mut peers = Vec::new();
        for &contestant in &scenario.contestants {
            match self.prepare(contestant, scenario) {
                Ok((peer, collected)) => peers.push((peer, collected)),
                Err(error) => self.skip(scenario, contestant, format!("{error:#}")),
            }
        }
        if peers.iter().all(|(peer, _)| peer.contestant.peer == "direct") {
            return Ok(());
        }
        let mut settings =
            SliceSettings { plan: self.plan(scenario)?, length: self.slice, origin_pids: self.origin.pids(), direct_load_core: self.direct_load_core() };
        if scenario.pace == Pace::HalfOfNginx {
            let Some((nginx, _)) = peers.iter().find(|(peer, _)| peer.contestant.peer == "nginx") else {
                peers.iter().for_each(|(peer, _)| {
                    self.run.skipped.push(skipped(scenario, peer.contestant, "the rate is half of nginx's, which did not run".into()));
                });
                return Ok(());
            };
            let reached: Result<Vec<f64>> = (0..3).map(|round| Ok(slice::measure(nginx, round, &settings)?.0.rps)).collect();
            let rate = stats::median(&reached?).unwrap_or(0.0) / 2.0;
            eprintln!("  rate {rate:.0}/s, half of nginx's saturation");
            settings.plan.rate = Some(rate.max(1.0));
        }
        let origin_slice = if settings.plan.rate.is_some() { OPEN_LOOP_SLICE } else { Duration::ZERO };
        for thread in self.origin.pids().into_iter().flat_map(crate::process::threads) {
            crate::machine::request_time_slice(thread, origin_slice);
        }
        let mut fallen: Vec<Collected> = Vec::new();
        for round in 0..self.rounds {
            let began = Instant::now();
            let mut line = String::new();
            peers.retain_mut(|(peer, collected)| {
                let measured = peer.refresh().and_then(|()| slice::measure(peer, round, &settings));
                match measured {
                    Ok((slice, latency)) => {
                        line.push_str(&progress(peer.contestant, &slice));
                        collected.add(slice, &latency);
                        true
                    }
                    // The others go on: a peer that fell over must not take a long run with it.
                    Err(error) => {
                        let reason = format!("it failed in round {}: {error:#}", round + 1);
                        self.skip(scenario, peer.contestant, reason);
                        fallen.push(collected.take());
                        false
                    }
                }
            });
            eprintln!("  round {:2}/{}  µs/request:{line}", round + 1, self.rounds);
            if until.is_some_and(|until| Instant::now() + began.elapsed() > until) {
                break;
            }
        }
        let collected: Vec<Collected> = peers.into_iter().map(|(_, collected)| collected).collect();
        for one in collected.iter().filter(|one| !one.has_good_slice()) {
            let reason = "no slice was free of wrong or missing answers".into();
            self.skip(scenario, one.contestant, reason);
        }
        let collected: Vec<Collected> = collected.into_iter().chain(fallen).collect();
        self.run.details.extend(summary::details(scenario, settings.plan.rate, &collected));
        Ok(())
    }

    /// Starts a contestant and checks that it answers rightly.
    fn prepare(&self, contestant: Contestant, scenario: &Scenario) -> Result<(Peer, Collected)> {
        let Some(cores) = self.placement.peer_cores(contestant.workers) else {
            bail!("{} workers need as many cores beside those of load and origin", contestant.workers);
        };
        let dir = self.dir.join(format!("{}-{}-{}-{}", scenario.name, contestant.peer, contestant.chain.plugins(), contestant.workers));
        let mut peer = Peer::launch(contestant, scenario, self.origin_address, cores, &self.programs, &dir)?;
        check::check_pattern(peer.address, &request(scenario.path)?, scenario.body_bytes).context("checking its answer")?;
        let forwarded_head =
            if scenario.short_circuit { None } else { Some(check::forwarded_head(peer.address, &request("/echo")?).context("asking what it forwards")?) };
        peer.refresh()?;
        Ok((peer, Collected::new(contestant, forwarded_head)))
    }

    fn plan(&self, scenario: &Scenario) -> Result<Plan> {
        Ok(Plan {
            address: self.origin_address,
            request: request(scenario.path)?.into(),
            is_head: false,
            connections: scenario.connections,
            rate: None,
            warm_up: self.warm_up,
            end: End::After(self.slice),
            timeout: Duration::from_secs(5),
            expect_status: 200,
            expect_bytes: Some(scenario.body_bytes),
            threads: 1,
            core: Some(self.placement.load),
        })
    }

    /// The load's own core when it is not the origin's; else the proxy's, which is idle while nobody is measured.
    fn direct_load_core(&self) -> usize {
        if self.placement.load != self.placement.origin { self.placement.load } else { self.placement.peer[0] }
    }

    fn skip(&mut self, scenario: &Scenario, contestant: Contestant, reason: String) {
        let plugins = contestant.chain.plugins();
        let with = if plugins > 0 { format!(" with {plugins} plugins") } else { String::new() };
        eprintln!("  skipped {}{with}: {reason}", contestant.peer);
        self.run.skipped.push(skipped(scenario, contestant, reason));
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn skipped(scenario: &Scenario, contestant: Contestant, reason: String) -> Skipped {
    Skipped { scenario: scenario.name.to_owned(), peer: contestant.peer.to_owned(), plugins: contestant.chain.plugins(), reason }
}

fn request(path: &str) -> Result<Vec<u8>> {
    request_bytes("GET", path, "bench.example", &FIELDS.map(str::to_owned), b"")
}

fn progress(contestant: Contestant, slice: &rows::Slice) -> String {
    let plugins = contestant.chain.plugins();
    let mut name = contestant.peer.to_owned();
    if plugins > 0 {
        name.push_str(&format!("+{plugins}"));
    }
    if contestant.workers > 1 {
        name.push_str(&format!(" ({} workers)", contestant.workers));
    }
    match slice.cpu_us {
        _ if slice.faults > 0 => format!("  {name} {} FAULTS", slice.faults),
        Some(cpu_us) => format!("  {name} {cpu_us:.1}"),
        None => format!("  {name} p50 {:.0}", slice.p50_us),
    }
}
