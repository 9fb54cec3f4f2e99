//! `ringway plugin …`: what looks at files, and what asks a running gateway.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use super::admin::Question;
use super::inspect;
use super::{Admin, Load, Named, Swap, Unload};
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
