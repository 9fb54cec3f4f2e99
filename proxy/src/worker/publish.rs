//! Publishing on one worker: the next program is built beside the one in force, and takes its place when every worker
//! could build it.
//!
//! Owns: the two phases as a worker sees them. Must not: wait, or decide whether a publication goes on; the process does.
//!
//! Exchanges keep the [`Program`](crate::exchange::core::Program) they began with. When the last of them ends, the old
//! chains drop their plugin instances and `core_fini` runs here, on the worker's thread; the process unloads a version
//! when no worker has an instance of it any more.

use std::rc::Rc;
use std::sync::Arc;

use super::program::{Built, build};
use super::{Local, Publication, Reply};
use crate::config::Config;
use crate::upstream;

/// A program that was built and is not in force yet.
pub(super) struct Prepared {
    built: Built,
    config: Config,
    upstreams: Arc<upstream::Shared>,
}

impl Local {
    /// The first phase. Nothing that exchanges see changes.
    pub(super) fn prepare(&self, publication: Publication) {
        let Publication { blueprint, upstreams, counts, reply } = publication;
        let core = &self.core;
        let built = build(&blueprint, &upstreams, &counts, core.worker, &core.slab, &self.plugins.borrow());
        let answer = built.map(|built| {
            let prepared = Prepared { built, config: blueprint.config.clone(), upstreams };
            drop(self.prepared.replace(Some(prepared)));
        });
        // Not the last reference: the process holds the plugins until the publication is over, and after it.
        drop(blueprint);
        // A process that no longer listens has abandoned the publication.
        let _ = reply.send((core.worker, answer));
    }

    /// The second phase. Runs between two polls of any exchange, so that each sees either program as a whole.
    pub(super) fn commit(&self, reply: &Reply) {
        let answer = match self.prepared.take() {
            Some(Prepared { built, config, upstreams }) => {
                self.core.upstreams.publish(upstreams, (*config.timeouts).clone());
                self.core.publish(built.program);
                self.core.publish_canary(built.canary);
                *self.config.borrow_mut() = Rc::new(config);
                // Dropping an instance runs `core_fini`, which must find nothing borrowed.
                drop(self.accept.replace(built.accept));
                drop(self.plugins.replace(built.plugins));
                Ok(())
            }
            None => Err("nothing was prepared".to_owned()),
        };
        // See `prepare`.
        let _ = reply.send((self.core.worker, answer));
    }
}
