//! `ringway plugin …`: what looks at files, and what asks a running gateway.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use super::admin::Question;
use super::{Admin, Load, Named, Swap, Time, Unload, Verify};
use super::{inspect, verify};
use crate::plugin::inspect::Offer;

/// Look at plugin files and at plugins that run.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Print what a plugin says about itself, or why it would be refused, without running its code
    #[command(
        after_help = "Exits 1 when one of the files would be refused.\n\nExamples:\n  ringway plugin inspect target/plugins/*.so\n  ringway plugin inspect -j target/plugins/request-id.so"
    )]
    Inspect {
        /// The plugin files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Print one JSON object per file
        #[arg(short, long)]
        json: bool,
    },
    /// Check a plugin file, then run the plugin on golden frames in a process of its own
    #[command(
        after_help = "First what its file says, without running its code; then a dry run that may crash, hang or write where it must not.\nPrints one line per check. Exits 1 when the plugin is refused.\n\nExample:\n  ringway plugin verify target/plugins/body-limit.so --config '{\"max_bytes\": 1000}'"
    )]
    Verify(Verify),
    /// Run a plugin on frames in a process of its own; print its verdicts and what its hooks take
    #[command(after_help = "Example:\n  ringway plugin run target/plugins/request-id.so --repeat 10000")]
    Run(Time),
    /// Print the plugins of a running gateway
    List(Admin),
    /// Print everything about a plugin of a running gateway
    Show(Named),
    /// Load a plugin into a running gateway
    #[command(
        after_help = "It is not written into the configuration: a reload or a restart forgets it.\n\nExample:\n  ringway plugin load limit target/plugins/rate-limit.so --config '{\"requests_per_second\": 100}' --route /api/"
    )]
    Load(Load),
    /// Replace the code or the configuration of a plugin while traffic flows
    #[command(
        after_help = "Requests in flight finish with the version they began with. On any error the old version goes on.\n\nExamples:\n  ringway plugin swap limit                      (the same file, built again)\n  ringway plugin swap limit target/new/rate-limit.so\n  ringway plugin swap limit target/new/rate-limit.so --canary 10%"
    )]
    Swap(Swap),
    /// Unload a plugin from a running gateway
    Unload(Unload),
    /// Pass a plugin by (on_error = "open"), or refuse what would reach it (on_error = "closed")
    Disable(Named),
    /// Undo `disable`, or end a quarantine
    Enable(Named),
    /// Give all exchanges to the version that is on trial
    #[command(after_help = "Example:\n  ringway plugin swap limit target/new/rate-limit.so --canary 10% && ringway plugin promote limit")]
    Promote(Named),
    /// End the trial of a version; without one, go back to what ran before the last swap
    Rollback(Named),
}

impl PluginCommand {
    /// Carries it out.
    pub(super) fn execute(self, offer: &Offer, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        match self {
            PluginCommand::Inspect { files, json } => inspect::inspect_files(&files, json, offer, out, err),
            PluginCommand::Verify(asked) => verify::verify(&asked, offer, out, err),
            PluginCommand::Run(asked) => verify::time(&asked, offer, out, err),
            PluginCommand::List(admin) => Question::list().ask(&admin, out, err),
            PluginCommand::Show(Named { name, admin }) => Question::show(&name).ask(&admin, out, err),
            PluginCommand::Load(load) => Question::load(&load).ask(&load.admin, out, err),
            PluginCommand::Swap(swap) => Question::swap(&swap).ask(&swap.admin, out, err),
            PluginCommand::Unload(unload) => Question::unload(&unload).ask(&unload.admin, out, err),
            PluginCommand::Disable(Named { name, admin }) => Question::turn(&name, "disable").ask(&admin, out, err),
            PluginCommand::Enable(Named { name, admin }) => Question::turn(&name, "enable").ask(&admin, out, err),
            PluginCommand::Promote(Named { name, admin }) => Question::turn(&name, "promote").ask(&admin, out, err),
            PluginCommand::Rollback(Named { name, admin }) => Question::turn(&name, "rollback").ask(&admin, out, err),
        }
    }
}
