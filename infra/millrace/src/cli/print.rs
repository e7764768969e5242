//! Writing to the person at the terminal.

use std::io::Write as _;

/// Writes a line about a failure for the person at the terminal.
pub fn eprint(line: &str) {
    // When nobody can be told, the exit status still says it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line of a tool's result.
pub fn print(line: &str) {
    print_raw(format!("{line}\n").as_bytes());
}

/// Writes a tool's result as it is. Whoever has stopped reading (`| head`) does not need the rest; a result
/// that cannot be written is none, and ends the process.
pub fn print_raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprint(&format!("error: writing the result: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Text that may do nothing to a terminal: neither controls, line ends among them, nor marks that turn the
/// writing around.
pub fn printable(text: &str) -> String {
    let escaped = |character: char| match character {
        '"' | '\'' | '\\' => character.into(),
        _ => character.escape_debug().collect::<String>(),
    };
    text.chars().map(escaped).collect()
}
