//! Running the file systems' own programs.

use std::process::{Command, Stdio};

use types::{Error, Result};

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) output: String,
}

/// Runs a program without input. A program that is not there is an error that names its
/// package; one that fails is not an error here.
pub(crate) fn run(program: &str, package: &str, arguments: &[&str]) -> Result<Ended> {
    let result = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output();
    match result {
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if text.is_empty() {
                text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            Ok(Ended {
                code: output.status.code().unwrap_or(-1),
                output: text,
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::unavailable(
            format!("{program} is not installed: apt-get install {package}"),
        )),
        Err(error) => Err(Error::wrap(format_args!("running {program}"), error)),
    }
}

/// The same; failing is an error of `operation`.
pub(crate) fn must(
    operation: impl std::fmt::Display,
    program: &str,
    package: &str,
    arguments: &[&str],
) -> Result<()> {
    let ended = run(program, package, arguments)?;
    if ended.code == 0 {
        return Ok(());
    }
    Err(Error::system(format!(
        "{operation}: {program} ended with code {}: {}",
        ended.code, ended.output
    )))
}
