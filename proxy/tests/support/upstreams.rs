//! Scripted upstream connections, handed to exchanges in the order of a plan.
//!
//! A connection that was given back is leased again while it is quiet, like in the worker's pool.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ringway::error::{Fault, UpstreamFault};
use ringway::exchange::core::{Choice, Lease, Outcome, Upstreams};
use ringway::exchange::watch::Watch;

use super::stream::{Pipe, ScriptReader, ScriptWriter, Step, bytes};

/// One connection of the plan.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub steps: Vec<Step>,
    /// It has carried an exchange before.
    pub pooled: bool,
    /// It cannot be made.
    pub refused: Option<Fault>,
    /// It takes so many bytes and then fails.
    pub write_fails_at: usize,
    /// It takes so many bytes and then none for ever.
    pub write_stalls_at: usize,
}

impl Upstream {
    /// A fresh connection that does these steps.
    pub fn script(steps: Vec<Step>) -> Upstream {
        Upstream { steps, pooled: false, refused: None, write_fails_at: usize::MAX, write_stalls_at: usize::MAX }
    }

    /// A fresh connection that answers one complete request after the other.
    pub fn answers<B: AsRef<[u8]>>(answers: impl IntoIterator<Item = B>) -> Upstream {
        Upstream::script(answers.into_iter().zip(1..).flat_map(|(answer, count)| [Step::AwaitRequests(count), bytes(answer)]).collect())
    }

    /// A fresh connection that answers when it has seen the head.
    pub fn answers_early(answer: impl AsRef<[u8]>) -> Upstream {
        Upstream::script(vec![Step::AwaitHead, bytes(answer)])
    }

    /// One answer, then the end of the connection.
    pub fn answers_and_closes(answer: impl AsRef<[u8]>) -> Upstream {
        Upstream::script(vec![Step::AwaitHead, bytes(answer), Step::Eof])
    }

    /// A connection that cannot be made.
    pub fn refused(fault: impl Into<Fault>) -> Upstream {
        Upstream { refused: Some(fault.into()), ..Upstream::script(Vec::new()) }
    }

    /// The same, as a connection that has carried an exchange before.
    pub fn pooled(self) -> Upstream {
        Upstream { pooled: true, ..self }
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Leased,
    GivenBack,
    Discarded(Option<UpstreamFault>),
}

/// A connection that was leased at least once.
pub struct Connection {
    pub pipe: Rc<Pipe>,
    pub fate: Cell<Fate>,
    pub leases: Cell<u32>,
}

/// The upstreams of one run.
pub struct ScriptedUpstreams {
    pub plan: RefCell<VecDeque<(Upstream, Rc<Pipe>)>>,
    pub connections: RefCell<Vec<Rc<Connection>>>,
    idle: RefCell<Vec<Lease<ScriptReader, ScriptWriter>>>,
    servers: Cell<u32>,
    /// Every choice that was made.
    pub choices: RefCell<Vec<Choice>>,
    /// What each lease said of its server at its end.
    pub said: RefCell<Vec<Outcome>>,
}

impl ScriptedUpstreams {
    pub fn new(plan: Vec<(Upstream, Rc<Pipe>)>) -> ScriptedUpstreams {
        let room = plan.len() + 1;
        ScriptedUpstreams {
            plan: RefCell::new(plan.into()),
            connections: RefCell::new(Vec::with_capacity(room)),
            idle: RefCell::new(Vec::with_capacity(room)),
            servers: Cell::new(0),
            choices: RefCell::new(Vec::with_capacity(1024)),
            said: RefCell::new(Vec::with_capacity(1024)),
        }
    }

    fn set_fate(&self, lease: &Lease<ScriptReader, ScriptWriter>, fate: Fate) {
        for connection in self.connections.borrow().iter().filter(|c| Rc::ptr_eq(&c.pipe, &lease.reader.0)) {
            assert_eq!(connection.fate.get(), Fate::Leased, "a connection is returned once");
            connection.fate.set(fate);
        }
    }

    fn take_idle(&self, upstream: u32) -> Option<Lease<ScriptReader, ScriptWriter>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = idle.iter().rposition(|lease| lease.upstream == upstream) {
            let mut lease = idle.remove(at);
            if lease.reader.0.is_quiet() {
                lease.reused = true;
                return Some(lease);
            }
        }
        None
    }
}

impl Upstreams for ScriptedUpstreams {
    type Reader = ScriptReader;
    type Writer = ScriptWriter;

    async fn lease(&self, choice: &mut Choice, watch: &Watch) -> Result<Lease<ScriptReader, ScriptWriter>, Fault> {
        self.choices.borrow_mut().push(choice.clone());
        if choice.pooled
            && let Some(lease) = self.take_idle(choice.upstream)
        {
            let connections = self.connections.borrow();
            let at = connections.iter().position(|c| Rc::ptr_eq(&c.pipe, &lease.reader.0)).expect("an idle connection was leased before");
            connections[at].fate.set(Fate::Leased);
            connections[at].leases.set(connections[at].leases.get() + 1);
            watch.up.set(at as i32);
            return Ok(lease);
        }
        let Some((planned, pipe)) = self.plan.borrow_mut().pop_front() else { return Err(UpstreamFault::NoServer.into()) };
        // Each connection of the plan is a server of its own.
        let server = self.servers.get();
        self.servers.set(server + 1);
        choice.takes(server);
        if let Some(fault) = planned.refused {
            return Err(fault);
        }
        assert!(choice.pooled || !planned.pooled, "the plan offers a pooled connection where a new one is asked for");
        let (reader, writer) = pipe.halves();
        let mut connections = self.connections.borrow_mut();
        watch.up.set(connections.len() as i32);
        connections.push(Rc::new(Connection { pipe, fate: Cell::new(Fate::Leased), leases: Cell::new(1) }));
        Ok(Lease { reader, writer, reused: planned.pooled, upstream: choice.upstream, server, generation: 0, made_ms: 0 })
    }

    fn give_back(&self, lease: Lease<ScriptReader, ScriptWriter>, outcome: Outcome) {
        self.said.borrow_mut().push(outcome);
        self.set_fate(&lease, Fate::GivenBack);
        self.idle.borrow_mut().push(lease);
    }

    fn discard(&self, lease: Lease<ScriptReader, ScriptWriter>, outcome: Outcome) {
        self.said.borrow_mut().push(outcome);
        let fault = if let Outcome::Failed(fault) = outcome { Some(fault) } else { None };
        self.set_fate(&lease, Fate::Discarded(fault));
    }

    fn may_retry(&self, _: u32, made: u32) -> bool {
        made < 2
    }
}
