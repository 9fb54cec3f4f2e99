//! Plugins that the system's C compiler makes on the spot: one good, and one for each reason to refuse.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::plugin::elf::ElfFault;

/// A plugin in which every fact is a macro, so that a case changes one of them.
const SOURCE: &str = r#"
#include <ringway.h>
#ifndef HOOKS
#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_DONE)
#endif
#ifndef WANTS
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_RESPOND)
#endif
#ifndef NOTE_MAJOR
#define NOTE_MAJOR RW_ABI_MAJOR
#endif
#ifndef MIN_MINOR
#define MIN_MINOR 0
#endif
#ifndef FINGERPRINT
#define FINGERPRINT RW_LAYOUT_FINGERPRINT
#endif
#ifndef SCRATCH
#define SCRATCH 64
#endif
#ifndef NAME
#define NAME "probe"
#endif
#ifndef NOTE_NAME
#define NOTE_NAME NAME
#endif
#ifndef NOTE_VERSION
#define NOTE_VERSION "1.2.3"
#endif
#ifndef NOTE_HOOKS
#define NOTE_HOOKS HOOKS
#endif
#ifndef NOTE_WANTS
#define NOTE_WANTS WANTS
#endif
#ifndef DESC_BYTES
#define DESC_BYTES (sizeof(rw_note) - 20u)
#endif
#ifndef LINKAGE
#define LINKAGE static
#endif
#ifndef ON_REQUEST
#define ON_REQUEST on_request
#endif
#ifndef ON_RESPONSE
#define ON_RESPONSE 0
#endif
#ifndef ON_TICK
#define ON_TICK 0
#endif
#ifndef SIZE
#define SIZE sizeof(rw_plugin)
#endif
#ifndef SYMBOL
#define SYMBOL RW_EXPORT const rw_plugin ringway_plugin_v1
#endif
#ifndef METRICS
#define METRICS {"hits_total", "Hits.", RW_METRIC_COUNTER, 0}, {"size", "Size.", RW_METRIC_GAUGE, 0}
#endif
#ifndef METRIC_COUNT
#define METRIC_COUNT 2
#endif
#ifndef METRIC_BYTES
#define METRIC_BYTES sizeof(rw_metric_def)
#endif
#ifndef METRIC_TYPE
#define METRIC_TYPE rw_metric_def
#endif
#ifndef METRIC_POINTER
#define METRIC_POINTER metrics
#endif
#ifndef MAPS
#define MAPS {0, 0, 0, 0, 0, 0}
#endif
#ifndef MAP_COUNT
#define MAP_COUNT 0
#endif
#ifndef MAP_BYTES
#define MAP_BYTES sizeof(rw_map_def)
#endif
#ifndef MAP_POINTER
#define MAP_POINTER maps
#endif

#define NOTE(ident) __attribute__((section(".note.ringway"), used, aligned(4))) static const rw_note ident = { \
    8u, DESC_BYTES, RW_NOTE_TYPE, "Ringway", NOTE_MAJOR, RW_ABI_MINOR, MIN_MINOR, RW_LANG_C, \
    (uint32_t)((FINGERPRINT) & 0xffffffffu), (uint32_t)((FINGERPRINT) >> 32), \
    (uint32_t)((uint64_t)(NOTE_WANTS) & 0xffffffffu), (uint32_t)((uint64_t)(NOTE_WANTS) >> 32), NOTE_HOOKS, SCRATCH, NOTE_NAME, NOTE_VERSION};
#ifndef WITHOUT_NOTE
NOTE(note)
#endif
#ifdef SECOND_NOTE
NOTE(second_note)
#endif

extern int imported(void);
#ifdef IMPORTED
#define VERDICT imported()
#else
#define VERDICT RW_CONTINUE
#endif
#ifdef WEAK_IMPORT
extern rw_verdict weak_import(rw_cx *, const rw_tick *) __attribute__((weak));
#endif

LINKAGE rw_verdict on_request(rw_cx *cx, const rw_request *r) { (void)cx; (void)r; return VERDICT; }
LINKAGE rw_verdict on_response(rw_cx *cx, const rw_response *r) { (void)cx; (void)r; return RW_CONTINUE; }
LINKAGE rw_verdict on_done(rw_cx *cx, const rw_done *d) { (void)cx; (void)d; return RW_CONTINUE; }
static const METRIC_TYPE metrics[] = {METRICS};
static const rw_map_def maps[] = {MAPS};
int some_data = 7;

SYMBOL = {
    .size = SIZE, .abi_major = RW_ABI_MAJOR, .abi_minor = RW_ABI_MINOR, .abi_min_minor = MIN_MINOR, .language = RW_LANG_C,
    .scratch_bytes = SCRATCH, .layout_fingerprint = FINGERPRINT, .wants = WANTS, .hooks = HOOKS, .name = NAME, .version = "1.2.3",
    .metrics = (const rw_metric_def *)METRIC_POINTER, .metric_count = METRIC_COUNT, .map_count = MAP_COUNT, .metric_bytes = METRIC_BYTES,
    .maps = (const rw_map_def *)MAP_POINTER, .map_bytes = MAP_BYTES,
    .on_request = ON_REQUEST, .on_response = (rw_verdict (*)(rw_cx *, const rw_response *))ON_RESPONSE, .on_done = on_done,
    .on_tick = ON_TICK,
};
#ifdef EXTRA
EXTRA
#endif
"#;

/// Compiles `SOURCE` with these arguments; the folder keeps the file alive.
struct Built {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Built {
    fn new(arguments: &[&str]) -> Built {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("probe.so");
        std::fs::write(folder.path().join("probe.c"), SOURCE).expect("the source");
        let built = Built { folder, path };
        built.compile("probe.c", "probe.so", &[&["-shared", "-fPIC"], arguments].concat());
        built
    }

    fn compile(&self, source: &str, output: &str, arguments: &[&str]) {
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi/include");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        // Libraries must come after the source that needs them.
        let (libraries, flags): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| argument.starts_with("-l"));
        let done = Command::new(compiler)
            .current_dir(self.folder.path())
            .arg("-I")
            .arg(include)
            .args(["-O1", "-w", "-o", output])
            .args(flags)
            .arg(source)
            .args(libraries)
            .output()
            .expect("a C compiler");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the plugin")
    }

    fn inspect(&self) -> Result<PluginFacts, Refusal> {
        inspect_bytes(&self.bytes(), &Offer::V1_0)
    }
}

/// The text of the refusal of `SOURCE` compiled with these arguments.
fn refusal(arguments: &[&str]) -> String {
    match Built::new(arguments).inspect() {
        Err(refusal) => refusal.to_string(),
        Ok(facts) => format!("not refused: {facts:?}"),
    }
}

#[test]
fn the_facts_of_a_good_plugin_are_read() {
    let built = Built::new(&["-Wl,--build-id=0x0123456789abcdef", "-lm", "-Wl,--no-as-needed"]);
    let facts = inspect(&built.path, &Offer::V1_0).expect("a good plugin");
    assert_eq!((facts.name.as_str(), facts.version.as_str(), facts.language_name()), ("probe", "1.2.3", "c"));
    assert_eq!((facts.abi_major, facts.abi_minor, facts.abi_min_minor), (raw::ABI_MAJOR, raw::ABI_MINOR, 0));
    assert_eq!(facts.fingerprint, raw::LAYOUT_FINGERPRINT);
    assert_eq!(facts.hook_names(), ["on_request", "on_done"]);
    assert_eq!(facts.want_names(), ["edit-request", "respond"]);
    assert_eq!((facts.scratch_bytes, facts.machine), (64, std::env::consts::ARCH));
    assert_eq!(facts.metrics, ["hits_total", "size"]);
    assert_eq!(facts.build_id.as_deref(), Some("0123456789abcdef"));
    assert!(facts.needed.iter().any(|name| name.starts_with("libm.so")), "{:?}", facts.needed);
    assert_eq!(facts.unchecked, [""; 0]);
    assert_eq!((facts.file_hash.len(), facts.file_bytes), (64, built.bytes().len() as u64));
}

/// SPEC S-7: definitions of metrics may grow in a later minor version.
#[test]
fn metrics_are_read_in_steps_of_the_size_that_the_plugin_states() {
    let grown = Built::new(&[
        "-DMETRIC_TYPE=struct { rw_metric_def now; uint64_t later[3]; }",
        "-DMETRIC_BYTES=sizeof metrics[0]",
        "-DMETRICS={{\"hits_total\", \"Hits.\", 1, 0}, {1, 2, 3}}, {{\"size\", \"Size.\", 2, 0}, {4, 5, 6}}",
    ]);
    assert_eq!(grown.inspect().map(|facts| facts.metrics), Ok(vec!["hits_total".into(), "size".into()]));
    let none = Built::new(&["-DMETRIC_COUNT=0", "-DMETRIC_BYTES=0"]);
    assert_eq!(none.inspect().map(|facts| facts.metrics), Ok(vec![]));
}

#[test]
fn functions_are_found_through_every_kind_of_relocation() {
    for arguments in [
        &["-DLINKAGE=static"][..],
        &["-DLINKAGE="],
        &["-DLINKAGE=__attribute__((visibility(\"protected\")))"],
        &["-DLINKAGE=", "-Wl,-Bsymbolic"],
        &["-Wl,--hash-style=sysv"],
        &["-Wl,--hash-style=gnu"],
        &["-Wl,-z,relro,-z,now"],
        &["-Wl,-z,pack-relative-relocs"],
        &["-nostdlib"],
        &["-s"],
        &["-g"],
    ] {
        let facts = Built::new(arguments).inspect();
        assert_eq!(facts.map(|facts| facts.hooks), Ok(raw::HOOK_REQUEST | raw::HOOK_DONE), "{arguments:?}");
        let without = [arguments, &["-DON_REQUEST=0"]].concat();
        assert_eq!(refusal(&without), "the plugin declares the hook `on_request` but has no function for it", "{without:?}");
        let more = [arguments, &["-DON_RESPONSE=on_response"]].concat();
        assert_eq!(refusal(&more), "the plugin has a function `on_response` but does not declare the hook", "{more:?}");
    }
}

#[test]
fn a_plugin_without_section_headers_is_read_all_the_same() {
    let mut file = Built::new(&[]).bytes();
    file[0x28..0x30].fill(0); // e_shoff
    file[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    assert_eq!(inspect_bytes(&file, &Offer::V1_0).map(|facts| facts.name), Ok("probe".into()));
}

#[test]
fn each_reason_has_its_own_text() {
    let fingerprint =
        format!("the plugin was built for another layout: its fingerprint is 0x0000000000000007, the gateway's is {:#018x}", raw::LAYOUT_FINGERPRINT);
    for (argument, expected) in [
        ("-DWITHOUT_NOTE", "the file has no Ringway note (`.note.ringway`)"),
        ("-DSECOND_NOTE", "the Ringway note makes no sense: there are 2 of them"),
        ("-DDESC_BYTES=124", "the Ringway note makes no sense: it has 124 bytes where 128 are needed"),
        ("-DNOTE_NAME=\"\"", "the Ringway note makes no sense: its name is not a text padded with NUL"),
        ("-DNOTE_NAME=\"a\\0b\"", "the Ringway note makes no sense: its name is not a text padded with NUL"),
        ("-DNOTE_VERSION=\"01234567890123456789012345678901\"", "the Ringway note makes no sense: its version is not a text padded with NUL"),
        ("-DNAME=\"A_b\"", "the Ringway note makes no sense: `A_b` is no name: [a-z0-9-]+ is"),
        ("-DSCRATCH=4097", "the Ringway note makes no sense: it asks for 4097 bytes of scratch memory; at most 4096 are given"),
        ("-DNOTE_MAJOR=2", "the plugin was built for ABI major version 2, the gateway has 1"),
        ("-DMIN_MINOR=7", "the plugin needs a newer minor version of the ABI: 1.7, the gateway has 1.0"),
        ("-DFINGERPRINT=UINT64_C(7)", fingerprint.as_str()),
        ("-DWANTS=(RW_WANT_MAPS|RW_WANT_RESPOND|UINT64_C(0x8000000000))", "the plugin wants what this gateway does not have: bit 0x8000000000"),
        ("-DWANTS=RW_WANT_MAPS", "the descriptor `ringway_plugin_v1` makes no sense: it wants maps and defines none"),
        ("-DHOOKS=(RW_HOOK_REQUEST|RW_HOOK_DONE|RW_HOOK_EVENT|0x4000)", "the plugin wants what this gateway does not have: on_event, bit 0x4000"),
        ("-DSYMBOL=__attribute__((used)) static const rw_plugin hidden", "the file exports no data symbol `ringway_plugin_v1`"),
        ("-DNOTE_HOOKS=RW_HOOK_DONE", "the note and the descriptor differ in `hooks`: 0x80 and 0x82"),
        ("-DNOTE_WANTS=0", "the note and the descriptor differ in `wants`: 0x0 and 0x21"),
        ("-DNOTE_NAME=\"other\"", "the note and the descriptor differ in `name`: `other` and `probe`"),
        ("-DNOTE_VERSION=\"1\"", "the note and the descriptor differ in `version`: `1` and `1.2.3`"),
        ("-DSIZE=184", "the descriptor `ringway_plugin_v1` makes no sense: its size is 184 bytes; that of ABI 1.0 is 200"),
        ("-DMAP_COUNT=1", "the descriptor `ringway_plugin_v1` makes no sense: it defines 1 maps and does not want maps"),
        ("-DMETRIC_POINTER=0", "the descriptor `ringway_plugin_v1` makes no sense: it defines 2 metrics, but the pointer to them is null"),
        ("-DMETRIC_COUNT=300", "the descriptor `ringway_plugin_v1` makes no sense: it defines 300 metrics; at most 256 are possible"),
        ("-DMETRIC_BYTES=16", "the descriptor `ringway_plugin_v1` makes no sense: its metrics have 16 bytes each; those of ABI 1.0 have 24"),
        ("-DMETRIC_BYTES=28", "the descriptor `ringway_plugin_v1` makes no sense: its metrics have 28 bytes each; those of ABI 1.0 have 24"),
        ("-DMETRICS={\"Hits\",\"Hits.\",1,0}", "the descriptor `ringway_plugin_v1` makes no sense: metric 0 has no name of the form [a-z0-9_]+"),
        ("-DMETRICS={\"a\",0,1,0}", "the descriptor `ringway_plugin_v1` makes no sense: the metric `a` has no help text"),
        ("-DMETRICS={\"a\",\"A.\",3,0}", "the descriptor `ringway_plugin_v1` makes no sense: the metric `a` is of kind 3, which does not exist"),
        ("-DMETRICS={\"a\",\"A.\",1,0},{\"a\",\"A.\",1,0}", "the descriptor `ringway_plugin_v1` makes no sense: the metric `a` is defined twice"),
        ("-DON_REQUEST=(void*)&some_data", "the descriptor `ringway_plugin_v1` makes no sense: `on_request` does not point to code"),
        ("-DON_REQUEST=(void*)0x1234", "the descriptor `ringway_plugin_v1` makes no sense: `on_request` does not point to code"),
        ("-Wl,-z,execstack", "the plugin would make the stack of every thread executable"),
        ("-DIMPORTED", "missing symbols: imported"),
    ] {
        assert_eq!(refusal(&[argument]), expected, "{argument}");
    }
    let text_relocation = &["-Wl,-z,notext", "-DEXTRA=__asm__(\".text\\n.balign 8\\n.quad ringway_plugin_v1\\n\");"];
    assert_eq!(refusal(text_relocation), "the plugin's code would have to be changed while it is loaded (TEXTREL)");
    assert_eq!(refusal(&["-Wl,-N", "-nostdlib"]), "the plugin has a segment that is writable and executable");
    let weak = &["-DWEAK_IMPORT", "-DON_TICK=weak_import"];
    assert_eq!(Built::new(weak).inspect().map(|facts| facts.hooks), Ok(raw::HOOK_REQUEST | raw::HOOK_DONE), "a weak symbol that nobody defines is null");
}

/// S-86
#[test]
fn maps_are_read_and_every_mistake_in_them_is_named() {
    const WANTS: &str = "-DWANTS=RW_WANT_MAPS";
    let two = r#"-DMAPS={"hits", " u64 n,u32 m", RW_MAP_HASH, 16, 12, 100}, {"net-1", "u64 n", RW_MAP_LPM, 20, 8, 7}"#;
    let facts = Built::new(&[WANTS, two, "-DMAP_COUNT=2"]).inspect().expect("a good plugin");
    let maps: Vec<String> = facts.maps.iter().map(|map| format!("{} {} {} \"{}\"", map.name(), map.kind(), map.entries_max(), map.value_fields())).collect();
    assert_eq!(maps, ["hits hash 100 \"u64 n, u32 m\"", "net-1 lpm 7 \"u64 n\""]);
    for (arguments, expected) in [
        (["-DMAP_COUNT=65", "-DMAPS={0}"], "it defines 65 maps; at most 64 are possible"),
        (["-DMAP_COUNT=1", "-DMAP_POINTER=0"], "it defines 1 maps, but the pointer to them is null"),
        (["-DMAP_COUNT=1", "-DMAP_POINTER=0x7fffffff"], "it defines 1 maps, but the pointer to them is null"),
        (["-DMAP_COUNT=1", "-DMAP_BYTES=24"], "its maps have 24 bytes each; those of ABI 1.0 have 32"),
        (["-DMAP_COUNT=1", "-DMAP_BYTES=36"], "its maps have 36 bytes each; those of ABI 1.0 have 32"),
        (["-DMAP_COUNT=1", "-DMAPS={0, \"u64 n\", 1, 4, 8, 1}"], "map 0 has no name, or one of more than 31 bytes"),
        (["-DMAP_COUNT=1", "-DMAPS={\"0123456789012345678901234567890123\", \"u64 n\", 1, 4, 8, 1}"], "map 0 has no name, or one of more than 31 bytes"),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", 0, 1, 4, 8, 1}"], "the map `a` has no value_fields"),
        (
            ["-DMAP_COUNT=1", "-DMAPS={\"a/b\", \"u64 n\", 1, 4, 8, 1}"],
            "the map `a/b` makes no sense: its name is not of the form [a-z0-9_-]+, of at most 31 bytes",
        ),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", \"u64 n\", 9, 4, 8, 1}"], "the map `a` makes no sense: its kind is 9, which does not exist"),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", \"u64 n\", 1, 8, 8, 1}"], "the map `a` makes no sense: its keys have 8 bytes; those of the kind array have 4"),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", \"u64 n\", 1, 4, 9, 1}"], "the map `a` makes no sense: its values have 9 bytes, its value_fields 8"),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", \"u63 n\", 1, 4, 8, 1}"], "the map `a` makes no sense: its value_fields make no sense: `u63` is no type of a field"),
        (["-DMAP_COUNT=1", "-DMAPS={\"a\", \"u64 n\", 1, 4, 8, 0}"], "the map `a` makes no sense: it has 0 entries; 1 to 16777216 are possible"),
        (["-DMAP_COUNT=2", "-DMAPS={\"a\", \"u64 n\", 1, 4, 8, 1}, {\"a\", \"u64 n\", 1, 4, 8, 1}"], "the map `a` is defined twice"),
    ] {
        let expected = format!("the descriptor `ringway_plugin_v1` makes no sense: {expected}");
        assert_eq!(refusal(&[WANTS, arguments[0], arguments[1]]), expected, "{arguments:?}");
    }
}

#[test]
fn a_descriptor_that_is_a_function_is_no_data_symbol() {
    let built =
        Built::new(&["-DSYMBOL=__attribute__((used)) static const rw_plugin hidden", "-DEXTRA=RW_EXPORT void renamed(void) {}", "-Drenamed=placeholder_fn_v1"]);
    let mut file = built.bytes();
    // The name is patched in, because C lets no object and function share one.
    while let Some(at) = file.windows(17).position(|window| window == b"placeholder_fn_v1") {
        file[at..at + 17].copy_from_slice(b"ringway_plugin_v1");
    }
    assert_eq!(inspect_bytes(&file, &Offer::V1_0), Err(Refusal::NoSymbol));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let built = Built::new(&[]);
    let good = built.bytes();
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        inspect_bytes(&file, &Offer::V1_0).expect_err("refused").to_string()
    };
    assert_eq!(inspect_bytes(b"#!/bin/sh\nexit 0\n", &Offer::V1_0), Err(Refusal::NotPlugin(ElfFault::NotElf)));
    assert_eq!(inspect_bytes(b"", &Offer::V1_0), Err(Refusal::NotPlugin(ElfFault::NotElf)));
    assert_eq!(patched(4, &[1]), "this is no shared object for a 64-bit little-endian machine");
    assert_eq!(patched(5, &[2]), "this is no shared object for a 64-bit little-endian machine");
    assert_eq!(patched(16, &[2, 0]), "this is no shared object but a program");
    assert_eq!(patched(18, &[243, 0]), format!("the plugin was built for machine 243, this machine is {}", std::env::consts::ARCH));
    built.compile("probe.c", "probe.o", &["-c", "-fPIC"]);
    let object = std::fs::read(built.folder.path().join("probe.o")).expect("the object");
    assert_eq!(inspect_bytes(&object, &Offer::V1_0), Err(Refusal::NotPlugin(ElfFault::NotShared("an object file that was not linked"))));
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("this program");
    assert_eq!(inspect_bytes(&program, &Offer::V1_0), Err(Refusal::NotPlugin(ElfFault::NotShared("a program"))));
}

#[test]
fn a_library_that_is_not_found_is_named_and_not_guessed_about() {
    let built = Built::new(&[]);
    std::fs::write(built.folder.path().join("other.c"), "int imported(void) { return 1; }").expect("the source");
    built.compile("other.c", "libringway_probe_other.so", &["-shared", "-fPIC"]);
    built.compile("probe.c", "probe.so", &["-shared", "-fPIC", "-DIMPORTED", "-L.", "-lringway_probe_other"]);
    let facts = built.inspect().expect("not refused");
    assert_eq!(facts.unchecked, ["libringway_probe_other.so"]);
}

#[test]
fn a_version_that_the_system_does_not_have_is_named() {
    let built = Built::new(&["-DIMPORTED", "-Dimported=atoi"]);
    assert!(built.inspect().is_ok());
    let mut file = built.bytes();
    let Some(at) = file.windows(6).position(|window| window == b"GLIBC_") else { return }; // a libc without versions
    file[at + 6] = b'9';
    let refusal = inspect_bytes(&file, &Offer::V1_0).expect_err("refused").to_string();
    assert!(refusal.starts_with("missing symbols: GLIBC_9") && refusal.ends_with(" of libc.so.6"), "{refusal}");
}

#[test]
fn no_code_of_an_inspected_plugin_runs() {
    let mark = tempfile::tempdir().expect("a folder");
    let mark = mark.path().join("ran");
    let extra =
        format!("-DEXTRA=int creat(const char *, unsigned); __attribute__((constructor)) static void run(void) {{ creat(\"{}\", 0600); }}", mark.display());
    for arguments in [&[extra.as_str()][..], &[extra.as_str(), "-DNOTE_MAJOR=9"]] {
        let _ = Built::new(arguments).inspect();
        assert!(!mark.exists());
    }
}

#[test]
fn a_refusal_says_what_where_why_and_what_to_do() {
    let missing = Path::new("no/such.so");
    assert_eq!(
        inspect(missing, &Offer::V1_0).expect_err("refused").to_string(),
        "no/such.so: the plugin cannot be read\n   = cause: No such file or directory (os error 2)\n   = help: check the path; it is taken from the working directory"
    );
    let built = Built::new(&["-DWITHOUT_NOTE"]);
    assert_eq!(
        inspect(&built.path, &Offer::V1_0).expect_err("refused").to_string(),
        format!(
            "{}: the file has no Ringway note (`.note.ringway`)\n   = cause: it may be some other library, or the note was lost because nothing keeps the linker from dropping it\n   = help: use `RW_DEFINE_NOTE`, `export_plugin!` or the Zig module, which define it",
            built.path.display()
        )
    );
}

#[test]
fn damaged_files_are_refused_or_read_but_never_more() {
    let good = Built::new(&["-Wl,-z,pack-relative-relocs", "-nostdlib"]).bytes();
    for length in (0..good.len()).step_by(61) {
        let _ = inspect_bytes(&good[..length], &Offer::V1_0);
    }
    // xorshift64 with a fixed seed: the same damage in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..600 {
        let mut file = good.clone();
        for _ in 0..1 + random() % 4 {
            let at = if random() % 2 == 0 { random() % 1024 } else { random() % file.len() };
            file[at] = if random() % 2 == 0 { random() as u8 } else { 0xff };
        }
        let _ = inspect_bytes(&file, &Offer::V1_0);
    }
}
