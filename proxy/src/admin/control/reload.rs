//! The configuration is read again: first the text, then the names of servers that it brings, which others look up, then the change itself.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::fixed;
use super::super::former::OfFile;
use super::{Change, Control, Next, Refusal};
use crate::config::Config;
use crate::limits::NAMES_WAIT;
use crate::worker::crew::Crew;

/// A configuration that has been read and may wait for names.
pub struct Awaited {
    next: Config,
    /// Nobody has answered for them when it was read.
    names: Vec<String>,
    until: Instant,
}

impl Control {
    /// Reads what the change needs to know before it is made, and has it looked up. `None`: it needs nothing, or it will be refused.
    pub fn prepare(&self, change: &Change) -> Option<Awaited> {
        let is_for_now = *change == Change::Reload && self.hinders(change).is_none();
        // What is wrong with the file is said by `apply`.
        let awaited = is_for_now.then(|| self.read())?.ok()?;
        if !awaited.names.is_empty() {
            tracing::info!(names = awaited.names.join(", "), "names of servers are looked up before the configuration is put in force");
        }
        Some(awaited)
    }

    /// Whether it need not wait any longer.
    pub fn is_ready(&self, awaited: &Awaited) -> bool {
        self.hosts.missing(&awaited.names).is_empty() || Instant::now() >= awaited.until
    }

    fn read(&self) -> Result<Awaited, Refusal> {
        let Some(file) = self.config.file.clone() else {
            return Err(Refusal::new(409, format!("there is no file to read again: the configuration is {}", self.config.source)));
        };
        let next = Config::load(&file).map_err(|errors| Refusal::new(422, errors.to_string()))?;
        let fixed = fixed::differences(&self.config, &next);
        if !fixed.is_empty() {
            return Err(Refusal::unfit(fixed));
        }
        let names = self.hosts.want(next.upstreams.iter().filter(|upstream| !self.config.upstreams.contains(upstream)));
        Ok(Awaited { next, names, until: Instant::now() + Duration::from_millis(u64::from(NAMES_WAIT)) })
    }

    /// Puts in force what was read.
    pub(super) fn reload(&mut self, read: Option<Awaited>, crew: &Crew) -> Result<Value, Refusal> {
        let outcome = match read {
            Some(awaited) => Ok(awaited),
            None => self.read(),
        };
        let outcome = outcome.and_then(|awaited| self.put_in_force(awaited, crew));
        self.hosts.follow(self.upstreams.current());
        let mut answer = outcome?;
        if let Some(warnings) = answer["warnings"].as_array_mut() {
            warnings.extend(self.hosts.unresolved().into_iter().map(|name| Value::from(format!("the server name `{name}` is not resolved yet"))));
        }
        Ok(answer)
    }

    fn put_in_force(&mut self, awaited: Awaited, crew: &Crew) -> Result<Value, Refusal> {
        let Awaited { next, names, .. } = awaited;
        self.hosts.give_up(&self.hosts.missing(&names));
        for warning in next.warnings.iter() {
            tracing::warn!("{warning}");
        }
        let mut header_names = (*self.names).clone();
        let plugins = self.loader.load_all(&next, &self.plugins, &mut header_names).map_err(Refusal::unfit)?;
        let warnings: Vec<String> = next.warnings.iter().map(ToString::to_string).collect();
        self.publish(Next { config: next, plugins, names: header_names, ..self.same() }, crew)?;
        self.of_file = OfFile::new(&self.config, &self.plugins);
        Ok(json!({ "reloaded": &*self.config.source, "publications": self.publications, "warnings": warnings }))
    }
}
