//! `ringway capture`: exchanges of a running gateway, as a file for dry runs.
#![forbid(unsafe_code)]

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Admin, address};
use crate::cli::client::fetch;
use crate::cli::{GOOD, WRONG, report};
use crate::config::Problem;
use crate::limits::{self, CAPTURE_EXCHANGES, CAPTURE_EXCHANGES_MAX, CAPTURE_MS_MAX, duration};
use crate::verify::frames;

/// Only for its owner: there may be secrets in it.
const MODE: u32 = 0o600;

/// Exchanges to capture.
#[derive(Debug, Args)]
pub struct Capture {
    /// How many exchanges
    #[arg(long, value_name = "N", default_value_t = CAPTURE_EXCHANGES, value_parser = clap::value_parser!(u32).range(1..=i64::from(CAPTURE_EXCHANGES_MAX)))]
    pub frames: u32,
    /// Only exchanges of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// The file to write, which only its owner may read
    #[arg(short, long, value_name = "FILE", default_value = "captured.frames")]
    pub output: PathBuf,
    /// How long to wait for them [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<u32>,
    /// Write credentials (Authorization, Proxy-Authorization, Cookie, Set-Cookie) and bodies as they come, instead of as many `x`
    #[arg(long)]
    pub keep_secrets: bool,
    /// Which gateway.
    #[command(flatten)]
    pub admin: Admin,
}

fn timeout(text: &str) -> Result<u32, String> {
    match limits::duration::parse(text)? {
        ms @ 1..=CAPTURE_MS_MAX => Ok(ms),
        _ => Err(format!("at most {}", duration::text(CAPTURE_MS_MAX))),
    }
}

impl Capture {
    /// Asks, and writes the file. With an error there is no file.
    pub(in crate::cli) fn execute(&self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let outcome = self.file().and_then(|(partial, file)| {
            self.fill(file, &partial).inspect_err(|_| {
                // It may not even have been made.
                let _ = fs::remove_file(&partial);
            })
        });
        let (count, secrets_kept) = match outcome {
            Ok(captured) => captured,
            Err(problem) => return report(err, "error", &[problem]).map(|()| WRONG),
        };
        if self.admin.json {
            writeln!(out, "{:#}", json!({ "file": self.output, "exchanges": count, "wanted": self.frames, "secrets_kept": secrets_kept }))?;
        } else {
            let secrets = if secrets_kept { "credentials and bodies as they came" } else { "credentials and bodies overwritten" };
            writeln!(out, "{}: {count} of {} exchanges, {secrets}", self.output.display(), self.frames)?;
        }
        Ok(GOOD)
    }

    /// The file beside the one that is to be, so that nobody waits for exchanges that cannot be written.
    fn file(&self) -> Result<(PathBuf, File), Problem> {
        let mut partial = self.output.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let opened = File::options().write(true).create(true).truncate(true).mode(MODE).open(&partial);
        // One that was there keeps its mode otherwise.
        let owned = opened.and_then(|file| file.set_permissions(Permissions::from_mode(MODE)).map(|()| file));
        owned.map(|file| (partial, file)).map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> Problem {
        Problem::new(format!("{} cannot be written", self.output.display())).cause(error.to_string())
    }

    fn fill(&self, mut file: File, partial: &Path) -> Result<(usize, bool), Problem> {
        let timeout = self.timeout.map(duration::text);
        let body = json!({ "frames": self.frames, "route": self.route, "timeout": timeout, "keep_secrets": self.keep_secrets });
        let answer = fetch(&address(&self.admin), "POST", "/api/capture", Some(&body))?;
        let captured = frames::read(&answer).map_err(|fault| Problem::new("what the gateway answers cannot be used").cause(fault.to_string()))?;
        let written = file.write_all(&answer).and_then(|()| file.sync_all()).and_then(|()| fs::rename(partial, &self.output));
        written.map_err(|error| self.unwritable(&error))?;
        Ok((captured.samples.len(), captured.secrets_kept))
    }
}
