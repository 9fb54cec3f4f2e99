//! What the process of a dry run tells the one that started it, one JSON object a line; and everything a plugin can be found
//! guilty of, each with its own text.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// This begins.
    At(Step),
    /// The library lies at these addresses.
    Mapped {
        /// First address.
        from: u64,
        /// Behind the last one.
        to: u64,
    },
    /// A step went well.
    Good {
        /// Which: `load`, `frame minimal`.
        name: String,
        /// What happened.
        detail: String,
    },
    /// The plugin is refused.
    Found(Found),
    /// A fatal signal, written by its handler.
    Signal {
        /// The hook that ran, or 0.
        hook: u32,
        /// Its number.
        number: i32,
        /// The address that was touched.
        address: u64,
        /// Where the code was.
        pc: u64,
        /// What the address is.
        place: Touched,
    },
    /// What a hook took, for `run`.
    Timed(Timed),
    /// The frames or the dry run itself are wrong.
    Unable(String),
    /// Everything has run.
    End,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `load`, `core_init`, `core_fini`, `unload` or a hook.
    pub function: String,
    /// The frame that a hook is called for.
    pub frame: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.frame {
            Some(frame) => write!(f, "`{}` on the frame `{frame}`", self.function),
            None => write!(f, "`{}`", self.function),
        }
    }
}

/// What a fatal signal touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Touched {
    /// Something read only that the gateway gave.
    Inside(String),
    /// Bytes behind something that the gateway gave.
    Behind(String, u64),
    /// What belongs to an exchange or a hook that is over.
    Past,
    /// The end of the stack.
    Stack,
    /// Anything else.
    Elsewhere,
}

/// Durations of one hook on one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// The frame; empty for hooks outside of exchanges.
    pub frame: String,
    /// The hook.
    pub hook: String,
    /// How often it returned which verdict.
    pub verdicts: Vec<(String, u64)>,
    /// Calls.
    pub calls: u64,
    /// The shortest call, in nanoseconds.
    pub min_ns: u64,
    /// Half of the calls took no longer.
    pub median_ns: u64,
    /// 99 of 100 calls took no longer.
    pub p99_ns: u64,
}

/// What a plugin did wrong in a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The dynamic loader refused it.
    Open(String),
    /// Its descriptor is malformed once loaded.
    Descriptor(String),
    /// `load` failed.
    Load(String),
    /// `core_init` failed.
    CoreInit(String),
    /// A hook returned ABORTED; what it logged last.
    Aborted(Step, Option<String>),
    /// A verdict that is unknown or not allowed in the hook.
    BadVerdict(Step, u32),
    /// RESPOND without a response.
    NothingWritten(Step),
    /// NEED_BODY without `request-body` in `wants`.
    BodyNotDeclared(Step),
    /// A host function that needs a bit of `wants`.
    NotDeclared(Step, String),
    /// A host function that makes no sense in the hook.
    WrongHook(Step, String),
    /// Bytes that cannot stand in a message.
    BadBytes(Step, String),
    /// A header that is the gateway's.
    Forbidden(Step, String),
    /// Arguments that make no sense.
    BadArgument(Step, String),
    /// `rw_cx` differs after the hook.
    CxChanged(Step),
    /// Bytes around a piece of memory differ after the hook.
    Overflow(Step, String),
    /// Threads run after `unload`.
    Threads(u64),
    /// Files are open after `unload`.
    Files(u64),
    /// Memory grows with every exchange, by so many bytes.
    Leak(u64),
    /// It wrote to what it may only read.
    Wrote(Step, String),
    /// It read or wrote behind the end of something.
    BeyondEnd(Step, String, u64),
    /// It used what belongs to an exchange or a hook that is over.
    UsedPast(Step),
    /// The stack overflowed.
    StackOverflow(Step),
    /// Another fatal signal: its name, the address that was touched, where the code was in the file.
    Signal(Step, String, Option<u64>, Option<u64>),
    /// It ended itself with `abort`.
    AbortCalled(Step),
    /// It ended the process with this code.
    Exit(Step, i32),
    /// It wrote to a file.
    FileWritten(Step),
    /// It did not return in time.
    Hang(Step, u64),
    /// It was killed by this signal, without a word of the handler.
    Killed(Step, i32),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Open(why) => write!(f, "the dynamic loader refused it: {why}"),
            Found::Descriptor(why) => write!(f, "its descriptor is malformed: {why}"),
            Found::Load(why) => write!(f, "its `load` failed: {why}"),
            Found::CoreInit(why) => write!(f, "its `core_init` failed: {why}"),
            Found::Aborted(step, None) => write!(f, "{step} returned ABORTED"),
            Found::Aborted(step, Some(said)) => write!(f, "{step} returned ABORTED, and logged: {said}"),
            Found::BadVerdict(step, verdict) => write!(f, "{step} returned {verdict}, which is no verdict of this hook"),
            Found::NothingWritten(step) => write!(f, "{step} returned RESPOND without having written a response"),
            Found::BodyNotDeclared(step) => write!(f, "{step} returned NEED_BODY, but `request-body` is not in its `wants` or `on_request_body` is missing"),
            Found::NotDeclared(step, function) => write!(f, "{step} called `{function}` without declaring it in `wants`"),
            Found::WrongHook(step, function) => write!(f, "{step} called `{function}`, which is not possible in this hook"),
            Found::BadBytes(step, function) => write!(f, "{step} passed bytes to `{function}` that cannot stand in a message"),
            Found::Forbidden(step, function) => write!(f, "{step} passed a header to `{function}` that belongs to the gateway"),
            Found::BadArgument(step, function) => write!(f, "{step} passed an argument to `{function}` that makes no sense"),
            Found::CxChanged(step) => write!(f, "{step} changed `rw_cx`, which belongs to the gateway"),
            Found::Overflow(step, what) => write!(f, "{step} wrote over the edge of {what}"),
            Found::Threads(count) => write!(f, "{count} of its threads run after `unload`; its code would be unmapped under them"),
            Found::Files(count) => write!(f, "it left {count} files open after `unload`"),
            Found::Leak(bytes) => write!(f, "it lost memory on every round of the frames: {bytes} bytes a round"),
            Found::Wrote(step, what) => write!(f, "{step} wrote to {what}, which is read only"),
            Found::BeyondEnd(step, what, 0) => write!(f, "{step} went beyond the end of {what}"),
            Found::BeyondEnd(step, what, bytes) => write!(f, "{step} went beyond the end of {what}, by {bytes} bytes"),
            Found::UsedPast(step) => write!(f, "{step} used memory that it was given for an earlier hook or exchange"),
            Found::StackOverflow(step) => write!(f, "{step} used up the stack"),
            Found::Signal(step, signal, address, pc) => {
                write!(f, "{step} died of {signal}")?;
                if let Some(address) = address {
                    write!(f, ", at the address {address:#x}")?;
                }
                pc.map_or(Ok(()), |pc| write!(f, "; its code was at {pc:#x} of the file"))
            }
            Found::AbortCalled(step) => write!(f, "{step} called abort()"),
            Found::Exit(step, code) => write!(f, "{step} ended the process with exit code {code}"),
            Found::FileWritten(step) => write!(f, "{step} wrote to a file, which a dry run does not allow"),
            Found::Hang(step, ms) => write!(f, "{step} did not return within {ms} ms"),
            Found::Killed(step, signal) => write!(f, "{step} was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hostile plugin that is found guilty of it. A new refusal does not compile without one.
    fn culprit(found: &Found) -> &'static str {
        match found {
            Found::Open(_) => "static-tls",
            Found::Descriptor(_) => "descriptor-rewritten",
            Found::Load(_) => "load-fails",
            Found::CoreInit(_) => "core-init-fails",
            Found::Aborted(_, None) => "edit-then-abort",
            Found::Aborted(_, Some(_)) => "abort-verdict",
            Found::BadVerdict(..) => "bad-verdict",
            Found::NothingWritten(_) => "respond-unwritten",
            Found::BodyNotDeclared(_) => "need-body-undeclared",
            Found::NotDeclared(..) => "undeclared-edit",
            Found::WrongHook(..) => "wrong-hook",
            Found::BadBytes(..) => "header-crlf",
            Found::Forbidden(..) => "header-framing",
            Found::BadArgument(..) => "commit-too-much",
            Found::CxChanged(_) => "change-cx",
            Found::Overflow(..) => "scratch-underflow",
            Found::Threads(_) => "leave-thread",
            Found::Files(_) => "leave-file",
            Found::Leak(_) => "leak",
            Found::Wrote(..) => "write-view",
            Found::BeyondEnd(..) => "read-beyond",
            Found::UsedPast(_) => "keep-view",
            Found::StackOverflow(_) => "stack-overflow",
            Found::Signal(..) => "null",
            Found::AbortCalled(_) => "abort",
            Found::Exit(..) => "exit",
            Found::FileWritten(_) => "write-file",
            Found::Hang(..) => "hang",
            Found::Killed(..) => "terminate",
        }
    }

    /// The black-box test of each of them stands in `tests/verify.rs`.
    #[test]
    fn each_refusal_has_a_hostile_plugin_that_is_tested() {
        let tested = include_str!("../../../tests/verify.rs");
        let source = include_str!("said.rs");
        let named: Vec<&str> =
            source.lines().filter_map(|line| line.trim().strip_prefix("Found::")?.split_once("=> \"")?.1.split_once('"').map(|(name, _)| name)).collect();
        assert!(named.len() >= 29, "{named:?}");
        assert!(named.contains(&culprit(&Found::Leak(1))));
        for name in named {
            assert!(tested.contains(&format!("(\"{name}\", ")), "{name} is not in tests/verify.rs");
        }
    }
}
