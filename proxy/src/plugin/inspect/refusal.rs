//! Why a plugin file is not loaded: one variant and one text for each reason.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use ringway_abi::raw;

use crate::config::Problem;
use crate::plugin::elf::ElfFault;

/// A reason, in the order in which they are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The file cannot be read: the system's reason.
    Unreadable(String),
    /// It is no shared object, or a damaged one.
    NotPlugin(ElfFault),
    /// It was made for this other processor.
    WrongMachine(String),
    /// It has no note `.note.ringway`.
    NoNote,
    /// The note makes no sense: why.
    BadNote(String),
    /// It was compiled for another major version of the ABI.
    AbiMajor {
        /// That version.
        plugin: u16,
    },
    /// It needs a newer minor version of the ABI.
    NewerMinor {
        /// The oldest minor version that it can run with.
        needs: u16,
        /// The one of this gateway.
        gateway: u16,
    },
    /// It was compiled against another layout of the views.
    Fingerprint {
        /// The fingerprint of that layout.
        plugin: u64,
    },
    /// It wants these hooks or capabilities, which the gateway does not have.
    Lacks(Vec<String>),
    /// It exports no data symbol `ringway_plugin_v1`.
    NoSymbol,
    /// The descriptor makes no sense: why.
    BadDescriptor(String),
    /// Note and descriptor differ.
    Disagrees {
        /// In this field.
        field: &'static str,
        /// As the note says.
        note: String,
        /// As the descriptor says.
        descriptor: String,
    },
    /// It declares this hook and has no function for it.
    HookWithoutFunction(&'static str),
    /// It has this function and does not declare the hook.
    FunctionWithoutHook(&'static str),
    /// It makes the stacks of the process executable.
    ExecutableStack,
    /// Its code must be changed while it is loaded.
    TextRelocations,
    /// A segment is writable and executable.
    WritableCode,
    /// No library that it needs has these symbols or versions.
    MissingSymbols(Vec<String>),
}

/// A refusal and the file it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file as the operator named it.
    pub path: PathBuf,
    /// The reason.
    pub refusal: Refusal,
}

/// Compiling again is the cure for most of them.
const REBUILD: &str = "build the plugin again with this gateway's ringway.h, ringway-sdk or Zig module";

/// The checks of a file, in order.
pub const CHECKS: [&str; 10] = ["file", "machine", "note", "abi", "layout", "capabilities", "descriptor", "functions", "memory", "libraries"];

impl Refusal {
    /// The check of [`CHECKS`] that it comes from.
    pub fn check(&self) -> &'static str {
        match self {
            Refusal::Unreadable(_) | Refusal::NotPlugin(_) => "file",
            Refusal::WrongMachine(_) => "machine",
            Refusal::NoNote | Refusal::BadNote(_) => "note",
            Refusal::AbiMajor { .. } | Refusal::NewerMinor { .. } => "abi",
            Refusal::Fingerprint { .. } => "layout",
            Refusal::Lacks(_) => "capabilities",
            Refusal::NoSymbol | Refusal::BadDescriptor(_) | Refusal::Disagrees { .. } => "descriptor",
            Refusal::HookWithoutFunction(_) | Refusal::FunctionWithoutHook(_) => "functions",
            Refusal::ExecutableStack | Refusal::TextRelocations | Refusal::WritableCode => "memory",
            Refusal::MissingSymbols(_) => "libraries",
        }
    }

    /// What, in one sentence without a full stop.
    fn what(&self) -> String {
        match self {
            Refusal::Unreadable(_) => "the plugin cannot be read".into(),
            Refusal::NotPlugin(ElfFault::NotElf) => "this is no shared object: it is not an ELF file".into(),
            Refusal::NotPlugin(ElfFault::NotElf64LittleEndian) => "this is no shared object for a 64-bit little-endian machine".into(),
            Refusal::NotPlugin(ElfFault::NotShared(kind)) => format!("this is no shared object but {kind}"),
            Refusal::NotPlugin(ElfFault::Malformed(part)) => format!("the file is damaged: {part} cannot be read"),
            Refusal::WrongMachine(machine) => format!("the plugin was built for {machine}, this machine is {}", std::env::consts::ARCH),
            Refusal::NoNote => "the file has no Ringway note (`.note.ringway`)".into(),
            Refusal::BadNote(why) => format!("the Ringway note makes no sense: {why}"),
            Refusal::AbiMajor { plugin } => format!("the plugin was built for ABI major version {plugin}, the gateway has {}", raw::ABI_MAJOR),
            Refusal::NewerMinor { needs, gateway } => {
                let major = raw::ABI_MAJOR;
                format!("the plugin needs a newer minor version of the ABI: {major}.{needs}, the gateway has {major}.{gateway}")
            }
            Refusal::Fingerprint { plugin } => {
                format!("the plugin was built for another layout: its fingerprint is {plugin:#018x}, the gateway's is {:#018x}", raw::LAYOUT_FINGERPRINT)
            }
            Refusal::Lacks(names) => format!("the plugin wants what this gateway does not have: {}", names.join(", ")),
            Refusal::NoSymbol => "the file exports no data symbol `ringway_plugin_v1`".into(),
            Refusal::BadDescriptor(why) => format!("the descriptor `ringway_plugin_v1` makes no sense: {why}"),
            Refusal::Disagrees { field, note, descriptor } => format!("the note and the descriptor differ in `{field}`: {note} and {descriptor}"),
            Refusal::HookWithoutFunction(hook) => format!("the plugin declares the hook `{hook}` but has no function for it"),
            Refusal::FunctionWithoutHook(hook) => format!("the plugin has a function `{hook}` but does not declare the hook"),
            Refusal::ExecutableStack => "the plugin would make the stack of every thread executable".into(),
            Refusal::TextRelocations => "the plugin's code would have to be changed while it is loaded (TEXTREL)".into(),
            Refusal::WritableCode => "the plugin has a segment that is writable and executable".into(),
            Refusal::MissingSymbols(names) => format!("missing symbols: {}", names.join(", ")),
        }
    }

    fn cause(&self) -> Option<String> {
        let cause = match self {
            Refusal::Unreadable(error) => error,
            Refusal::NotPlugin(ElfFault::NotElf) => "the path may lead to a source file, an archive or a script",
            Refusal::NotPlugin(ElfFault::Malformed(_)) => "the file may be cut off, or a copy that is still being written",
            Refusal::NoNote => "it may be some other library, or the note was lost because nothing keeps the linker from dropping it",
            Refusal::NoSymbol => "the symbol may be hidden by `-fvisibility=hidden`, a version script or a missing `RW_EXPORT`",
            Refusal::Fingerprint { .. } => "it was compiled against a changed or unreleased copy of the contract",
            Refusal::Disagrees { .. } => "the two were written with different values",
            Refusal::ExecutableStack => "an assembly file without `.note.GNU-stack`, a nested function in C, or `-z execstack`",
            Refusal::TextRelocations => "a part of it was compiled without `-fPIC`",
            Refusal::WritableCode => "a linker script, or `-N` or `--omagic`",
            Refusal::MissingSymbols(_) => "a library is missing from the link, or it was built on a newer system than this one",
            _ => return None,
        };
        Some(cause.to_owned())
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Refusal::Unreadable(_) => "check the path; it is taken from the working directory",
            Refusal::NotPlugin(ElfFault::Malformed(_)) => "copy or build it again",
            Refusal::NotPlugin(_) => "link it with `cc -shared -fPIC`, `crate-type = [\"cdylib\"]` or `zig build-lib -dynamic`",
            Refusal::WrongMachine(_) => "build it for this machine",
            Refusal::NoNote => "use `RW_DEFINE_NOTE`, `export_plugin!` or the Zig module, which define it",
            Refusal::AbiMajor { .. } | Refusal::Fingerprint { .. } => REBUILD,
            Refusal::NewerMinor { .. } => "use a newer gateway, or lower `abi_min_minor` if the plugin can do without",
            Refusal::Lacks(_) => "use a newer gateway, or a plugin that does without",
            Refusal::NoSymbol => "define `RW_EXPORT const rw_plugin ringway_plugin_v1`",
            Refusal::BadNote(_) | Refusal::BadDescriptor(_) => REBUILD,
            Refusal::Disagrees { .. } => "give both the same value; `export_plugin!` and the Zig module do it by themselves",
            Refusal::HookWithoutFunction(_) => "write the function, or remove its bit from `hooks`",
            Refusal::FunctionWithoutHook(_) => "add its `RW_HOOK_` bit to `hooks`, or remove the function",
            Refusal::ExecutableStack => "link with `-z noexecstack` after removing the cause",
            Refusal::TextRelocations => "compile every part with `-fPIC`",
            Refusal::WritableCode => "link with the default script and without these flags",
            Refusal::MissingSymbols(_) => "add the library to the link, or build on the oldest system that the plugin is to run on",
        };
        Some(help.to_owned())
    }
}

impl Refused {
    /// The refusal in the form of every operator error.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.refusal.what()).in_file(&self.path);
        Problem { cause: self.refusal.cause(), help: self.refusal.help(), ..problem }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem().fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl std::error::Error for Refused {}
