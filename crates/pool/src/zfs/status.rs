//! Reads `zpool status`.

use std::path::PathBuf;

use crate::Health;

/// What `zpool status` says of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub health: Health,
    pub copies: u32,
    pub devices: Vec<PathBuf>,
}

/// One line of the table of devices.
struct Row<'a> {
    indent: usize,
    name: &'a str,
    state: &'a str,
    errors: Vec<&'a str>,
    rest: String,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let text = line.strip_prefix('\t')?;
        let mut words = text.split_whitespace();
        let (name, state) = (words.next()?, words.next()?);
        if name == "NAME" {
            return None;
        }
        Some(Self {
            indent: text.len() - text.trim_start().len(),
            name,
            state,
            errors: words.by_ref().take(3).collect(),
            rest: words.collect::<Vec<_>>().join(" "),
        })
    }
    /// A missing device is shown by its number and by the path that it had.
    fn path(&self) -> &str {
        match self.rest.strip_prefix("was ") {
            Some(path) => path.split_whitespace().next().unwrap_or(self.name),
            None => self.name,
        }
    }
    fn is_group(&self) -> bool {
        ["mirror", "raidz", "draid", "replacing", "spare"]
            .iter()
            .any(|kind| self.name.starts_with(kind))
    }
    fn problem(&self) -> Option<String> {
        if !matches!(self.state, "ONLINE" | "AVAIL" | "INUSE") {
            let rest = self.rest.strip_prefix("was ").unwrap_or(&self.rest);
            let rest = rest.strip_prefix(self.path()).unwrap_or(rest).trim();
            let why = if rest.is_empty() {
                String::new()
            } else {
                format!(" ({rest})")
            };
            return Some(format!("device {} is {}{why}", self.path(), self.state));
        }
        let mut errors = self
            .errors
            .iter()
            .zip(["read", "write", "checksum"])
            .filter(|(count, _)| **count != "0" && count.starts_with(|c: char| c.is_ascii_digit()))
            .map(|(count, kind)| format!("{count} {kind} errors"))
            .peekable();
        errors.peek()?;
        let errors = errors.collect::<Vec<_>>().join(", ");
        Some(format!(
            "device {} had {errors}: replace it, or `zpool clear` when the cause is gone",
            self.path()
        ))
    }
}

/// The value of a line `key: value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "))
        .map(str::trim)
}

pub(super) fn parse(text: &str) -> Report {
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| line.trim() != "config:")
        .skip(1)
        .take_while(|line| !line.starts_with("errors:"))
        .filter_map(Row::parse)
        .collect();
    let copies = if rows.iter().any(|row| row.name.starts_with("mirror")) {
        2
    } else {
        1
    };
    // The first row is the pool itself.
    let leaves: Vec<_> = rows
        .iter()
        .skip(1)
        .filter(|row| row.indent > 0 && !row.is_group())
        .collect();
    let mut problems: Vec<_> = leaves.iter().filter_map(|row| row.problem()).collect();
    if let Some(errors) = field(text, "errors").filter(|errors| *errors != "No known data errors") {
        problems.push(format!(
            "{errors} (`zpool status -v` lists what is damaged)"
        ));
    }
    let state = field(text, "state").unwrap_or("UNKNOWN");
    let suspended = field(text, "status")
        .is_some_and(|status| status.contains("suspend") || status.contains("faulted in response"));
    let problems = problems.join("; ");
    let health = match state {
        _ if suspended => Health::Faulted(join("input and output are suspended", &problems)),
        "ONLINE" if problems.is_empty() => Health::Online,
        "ONLINE" => Health::Degraded(problems),
        "DEGRADED" if problems.is_empty() => Health::Degraded("the pool is DEGRADED".into()),
        "DEGRADED" => Health::Degraded(problems),
        other => Health::Faulted(join(&format!("the pool is {other}"), &problems)),
    };
    let devices = leaves
        .iter()
        .map(|row| {
            let path = PathBuf::from(row.path());
            if path.is_absolute() {
                path
            } else {
                PathBuf::from("/dev").join(path)
            }
        })
        .collect();
    Report {
        health,
        copies,
        devices,
    }
}

fn join(what: &str, problems: &str) -> String {
    if problems.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {problems}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGRADED: &str = "  pool: tp
 state: DEGRADED
status: One or more devices could not be opened.  Sufficient replicas exist for
	the pool to continue functioning in a degraded state.
action: Attach the missing device and online it using 'zpool online'.
 scrub: none requested
config:

	NAME                      STATE     READ WRITE CKSUM
	tp                        DEGRADED     0     0     0
	  mirror-0                DEGRADED     0     0     0
	    /tmp/dev/d0           ONLINE       0     0     0
	    17600158709224022506  UNAVAIL      0     0     0  was /tmp/dev/d1

errors: No known data errors
";

    #[test]
    fn a_missing_mirror_half_is_named() {
        let report = parse(DEGRADED);
        assert_eq!(
            report,
            Report {
                health: Health::Degraded("device /tmp/dev/d1 is UNAVAIL".into()),
                copies: 2,
                devices: vec!["/tmp/dev/d0".into(), "/tmp/dev/d1".into()],
            }
        );
    }

    #[test]
    fn a_sound_stripe() {
        let report = parse(
            "  pool: tp\n state: ONLINE\n scrub: none requested\nconfig:\n\n\tNAME    STATE     READ WRITE CKSUM\n\ttp      ONLINE       0     0     0\n\t  sdb   ONLINE       0     0     0\n\t  /x/y  ONLINE       0     0     0\n\nerrors: No known data errors\n",
        );
        assert_eq!(report.health, Health::Online);
        assert_eq!(report.copies, 1);
        assert_eq!(report.devices, [PathBuf::from("/dev/sdb"), "/x/y".into()]);
    }

    #[test]
    fn errors_that_were_repaired_are_told() {
        let report = parse(&DEGRADED.replace("DEGRADED", "ONLINE  ").replace(
            "17600158709224022506  UNAVAIL      0     0     0  was /tmp/dev/d1",
            "/tmp/dev/d1           ONLINE       0     0   421  11.8M repaired",
        ));
        let Health::Degraded(why) = report.health else {
            panic!("{report:?}");
        };
        assert!(
            why.starts_with("device /tmp/dev/d1 had 421 checksum errors"),
            "{why}"
        );
    }

    #[test]
    fn a_pool_without_its_device_is_faulted() {
        let report = parse(&DEGRADED.replace("DEGRADED", "UNAVAIL "));
        let Health::Faulted(why) = report.health else {
            panic!("{report:?}");
        };
        assert!(
            why.contains("UNAVAIL") && why.contains("/tmp/dev/d1"),
            "{why}"
        );
        let report = parse(
            "  pool: p\n state: ONLINE\nstatus: One or more devices are faulted in response to IO failures.\nconfig:\n\n\tNAME  STATE READ WRITE CKSUM\n\tp     ONLINE 0 0 0\n\t  sda ONLINE 3 2.1K 0\n\nerrors: List of errors unavailable\n",
        );
        assert!(matches!(report.health, Health::Faulted(_)), "{report:?}");
    }

    #[test]
    fn headings_are_no_devices() {
        let report = parse(
            " state: ONLINE\nconfig:\n\n\tNAME          STATE  READ WRITE CKSUM\n\tp             ONLINE 0 0 0\n\t  mirror-0    ONLINE 0 0 0\n\t    /dev/a    ONLINE 0 0 0\n\t    /dev/b    ONLINE 0 0 0\n\tlogs\n\t  /dev/c      ONLINE 0 0 0\n\nerrors: No known data errors\n",
        );
        assert_eq!(report.health, Health::Online);
        assert_eq!(report.devices.len(), 3);
    }
}
