//! The command `ringway`.
fn main() -> std::process::ExitCode {
    let path = std::env::args().nth(1).expect("config");
    match ringway::config::Config::load(std::path::Path::new(&path)) {
        Ok(config) => std::process::ExitCode::from(ringway::run::run(config) as u8),
        Err(e) => { eprintln!("{e}"); std::process::ExitCode::FAILURE }
    }
}
