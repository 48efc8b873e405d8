//! `.dockerignore`: what is not uploaded.
//!
//! Patterns are docker's: from the folder of the file on, `*` and `?` within a name, `**` for any
//! number of folders, `!` takes back, `#` begins a comment. The last one that fits counts; what
//! fits a folder fits all that is in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The patterns of a file.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    folder: PathBuf,
    patterns: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    /// Those of the nearest file, in `folder` or above it up to `top`.
    pub(crate) fn nearest(folder: &Path, top: &Path) -> io::Result<Self> {
        for above in folder.ancestors() {
            match fs::read_to_string(above.join(".dockerignore")) {
                Ok(text) => return Ok(Self::parse(above, &text)),
                // The path that is mounted may be a file, or not be there.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
            if above == top || !above.starts_with(top) {
                break;
            }
        }
        Ok(Self::default())
    }

    fn parse(folder: &Path, text: &str) -> Self {
        let pattern = |line: &str| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (taken_back, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts: Vec<String> = line
                .split('/')
                .filter(|part| !part.is_empty() && *part != ".")
                .map(str::to_owned)
                .collect();
            (!parts.is_empty()).then_some((taken_back, parts))
        };
        Self {
            folder: folder.to_owned(),
            patterns: text.lines().filter_map(pattern).collect(),
        }
    }

    /// Whether something may be taken back below what is left out: then folders have to be
    /// looked into.
    pub(crate) fn takes_back(&self) -> bool {
        self.patterns.iter().any(|(taken_back, _)| *taken_back)
    }

    /// Whether a path is left out.
    pub(crate) fn leaves_out(&self, path: &Path) -> bool {
        let Ok(relative) = path.strip_prefix(&self.folder) else {
            return false;
        };
        let names: Vec<String> = relative
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let mut left_out = false;
        for (taken_back, pattern) in &self.patterns {
            let fits = (1..=names.len()).any(|end| fits(pattern, &names[..end]));
            if fits {
                left_out = !taken_back;
            }
        }
        left_out
    }
}

/// Whether a pattern fits a whole path.
fn fits(pattern: &[String], names: &[String]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            (0..=names.len()).any(|skipped| fits(rest, &names[skipped..]))
        }
        (Some((first, rest)), Some((name, others))) => {
            let (first, name): (Vec<char>, Vec<char>) =
                (first.chars().collect(), name.chars().collect());
            name_fits(&first, &name) && fits(rest, others)
        }
        _ => false,
    }
}

/// Whether a part of a pattern fits a name.
fn name_fits(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skipped| name_fits(rest, &name[skipped..])),
        (Some(('?', rest)), Some((_, others))) => name_fits(rest, others),
        (Some(('\\', rest)), Some((letter, others))) => match rest.split_first() {
            Some((escaped, rest)) => escaped == letter && name_fits(rest, others),
            None => false,
        },
        (Some(('[', rest)), Some((letter, others))) => {
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return false;
            };
            let (set, negated) = match rest[..end].split_first() {
                Some(('^' | '!', set)) => (set, true),
                _ => (&rest[..end], false),
            };
            let mut within = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == '-' {
                    within |= (set[at]..=set[at + 2]).contains(letter);
                    at += 3;
                } else {
                    within |= set[at] == *letter;
                    at += 1;
                }
            }
            within != negated && name_fits(&rest[end + 1..], others)
        }
        (Some((first, rest)), Some((letter, others))) => first == letter && name_fits(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let text = "# comment\nnode_modules\n*.log\n**/*.tmp\n/build/out\nsecret*\n!secret.txt\ndir/[a-c]?\n";
        let ignore = Ignore::parse(Path::new("/p"), text);
        for out in [
            "/p/node_modules",
            "/p/node_modules/x/y",
            "/p/a.log",
            "/p/x/y/z.tmp",
            "/p/z.tmp",
            "/p/build/out/a",
            "/p/secrets",
            "/p/dir/b1",
        ] {
            assert!(ignore.leaves_out(Path::new(out)), "{out}");
        }
        for kept in [
            "/p",
            "/p/x/a.log",
            "/p/x/node_modules",
            "/p/build",
            "/p/secret.txt",
            "/p/dir/d1",
            "/p/dir/b12",
            "/elsewhere/a.log",
        ] {
            assert!(!ignore.leaves_out(Path::new(kept)), "{kept}");
        }
        assert!(ignore.takes_back());
        assert!(!Ignore::default().leaves_out(Path::new("/p/a.log")));
    }
}
