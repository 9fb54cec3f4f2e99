//! What the supervisor and a gateway process tell each other: one JSON object a line, over a socket pair.
//!
//! The first line is the supervisor's [`Brief`]. A new version of the gateway may be started by an old supervisor, so
//! fields are only ever added, and [`PROTOCOL`] grows when that is not enough.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::crash::Crash;
use crate::config::ListenAddress;
use crate::upstream::resolve::Known;

/// Of this file.
pub const PROTOCOL: u32 = 1;

/// What a gateway process starts with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    /// [`PROTOCOL`] of the supervisor.
    pub protocol: u32,
    /// The configuration file, for reloads and messages.
    pub path: PathBuf,
    /// The configuration in force; the file may say something else by now.
    pub text: String,
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<Inherited>,
    /// The admin listener.
    pub admin: Option<Inherited>,
    /// Where a crash record is written.
    pub record: RawFd,
    /// Plugins that are out of force.
    pub standings: Standings,
    /// The last crashes, the oldest first.
    pub crashes: Vec<Crash>,
    /// How often the gateway process was started again.
    pub restarts: u64,
    /// What the last process that served knew of the names of servers. Older supervisors do not say it.
    #[serde(default)]
    pub known: Known,
    /// What the last process that served ran. Older supervisors do not say it.
    #[serde(default)]
    pub plugins: Hashes,
    /// The process before this one has died: it is better to serve without a plugin than not at all.
    #[serde(default)]
    pub is_restart: bool,
    /// Once everything is loaded, say [`FromGateway::Loaded`] and accept connections only when told to. Older supervisors do not.
    #[serde(default)]
    pub waits: bool,
}

/// The plugins of the configuration by name, and the SHA-256 of the file of each in hex.
pub type Hashes = BTreeMap<String, String>;

/// Sockets that a gateway process inherits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inherited {
    /// Where they listen.
    pub address: String,
    /// By worker.
    pub fds: Vec<RawFd>,
}

impl Inherited {
    pub(super) fn address(&self) -> Result<ListenAddress, String> {
        ListenAddress::parse(&self.address).map_err(|problem| problem.to_string())
    }
}

/// Plugins that are out of force, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standings {
    /// By an operator.
    pub disabled: Vec<String>,
    /// By the gateway, and why.
    pub quarantined: BTreeMap<String, String>,
    /// Those of them that could not be loaded: whatever file is found ends it. Older programs and supervisors do not say it.
    #[serde(default)]
    pub missing: BTreeSet<String>,
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToGateway {
    /// Accept connections. Only for those who have said [`FromGateway::Loaded`].
    Serve,
    /// No other process serves from now on: take orders, and say what is in force. Only for those who have said [`FromGateway::Loaded`].
    InCharge,
    /// Another process serves from now on: finish what is in flight and end.
    HandOver {
        /// Its pid.
        successor: u32,
    },
    /// A process that still finished something has died. Older programs do not understand it, and say so in their log.
    Crashed {
        /// Its record.
        crash: Box<Crash>,
    },
    /// An upgrade is under way, whoever asked for it: make no changes until it is over, and say [`FromGateway::Held`]. Only for those who can.
    UpgradeBegins {
        /// Which one of this supervisor.
        number: u64,
    },
    /// The upgrade that was asked for, or is under way, did not happen.
    UpgradeFailed {
        /// Why.
        reason: String,
        /// It never began: another one is under way, and still is. Older supervisors do not say it.
        #[serde(default)]
        is_under_way: bool,
    },
    /// Read the configuration again: a SIGHUP. Only for those who can make no changes, as [`FromGateway::InForce`] says.
    Reload,
}

/// What a gateway process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromGateway {
    /// All plugins are loaded and every worker has made its instances: nothing that can fail or last is left before [`ToGateway::Serve`] is obeyed.
    /// Older programs do not say it, and accept connections when they can.
    Loaded,
    /// Every worker accepts connections.
    Ready,
    /// What another process is to start with has changed.
    InForce {
        /// The text of the configuration.
        text: String,
        /// Plugins that are out of force.
        standings: Standings,
        /// What is known of the names of servers. Older programs do not say it.
        #[serde(default)]
        known: Option<Known>,
        /// What was loaded of the plugins. Older programs do not say it.
        #[serde(default)]
        plugins: Hashes,
        /// It understands [`ToGateway::UpgradeBegins`] and [`ToGateway::Reload`]. Older programs do not.
        #[serde(default)]
        can_hold: bool,
    },
    /// It knows of the upgrade, and every change that was made before is in what it has said: it makes no more.
    Held {
        /// The number of the upgrade.
        upgrade: u64,
    },
    /// An operator asks for an upgrade.
    Upgrade {
        /// The program; `None`: the one that was started.
        binary: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_knows_less_or_more_is_understood() {
        let said = r#"{"InForce":{"text":"t","standings":{"disabled":[],"quarantined":{}},"later":1}}"#;
        assert!(matches!(serde_json::from_str(said), Ok(FromGateway::InForce { known: None, plugins, can_hold: false, .. }) if plugins.is_empty()));
        let failed = serde_json::from_str(r#"{"UpgradeFailed":{"reason":"r"}}"#);
        assert!(matches!(failed, Ok(ToGateway::UpgradeFailed { is_under_way: false, .. })));
        let brief = r#"{"protocol":1,"path":"f","text":"t","listeners":[],"admin":null,"record":3,"standings":{"disabled":[],"quarantined":{}},
            "crashes":[],"restarts":0,"later":1}"#;
        assert!(
            serde_json::from_str::<Brief>(brief).is_ok_and(|brief| brief.known.is_empty() && brief.plugins.is_empty() && !brief.is_restart && !brief.waits)
        );
    }
}
