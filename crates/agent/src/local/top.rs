//! `docker top`: the machine's `ps`, rows of other containers left out.

use types::{ContainerId, Error, Result, error::ResultExt as _};

use super::LocalAgent;

impl LocalAgent {
    pub(super) async fn ps(
        &self,
        id: &ContainerId,
        arguments: &str,
    ) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let pids = self.runtime.pids(id).await?;
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let output = tokio::process::Command::new("ps")
            .args(&words)
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .during(|| "running ps (package procps)")?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(Error::invalid(format!("ps: {}", reason.trim())));
        }
        rows(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

/// The titles, and the rows whose PID column is among `pids`.
fn rows(text: &str, pids: &[i32]) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut found = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = Vec::new();
        let mut rest = line.trim_start();
        // The last column holds the command with its blanks.
        while fields.len() + 1 < titles.len() && !rest.is_empty() {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            fields.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
        fields.push(rest.trim_end().to_owned());
        let pid = fields.get(column).and_then(|text| text.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            found.push(fields);
        }
    }
    Ok((titles, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_processes() {
        let text = "UID  PID  CMD\nroot  1  /sbin/init\nroot  42  sleep 100 \n";
        let (titles, found) = rows(text, &[42]).unwrap();
        assert_eq!(titles, ["UID", "PID", "CMD"]);
        assert_eq!(found, [["root", "42", "sleep 100"]]);
        assert!(rows("CMD\nx\n", &[1]).is_err());
    }
}
