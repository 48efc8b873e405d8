//! A container's configuration from what the user asked for and what the image brings.

use types::{Config, Error, Result, container::HealthConfig};

/// Fills what `user` left open from `image`, by docker's rules.
///
/// Fails when there is no command at all.
pub(super) fn merge(mut user: Config, image: &Config) -> Result<Config> {
    let keep = |own: &mut String, other: &String| {
        if own.is_empty() {
            own.clone_from(other);
        }
    };
    keep(&mut user.user, &image.user);
    keep(&mut user.working_dir, &image.working_dir);

    // A command given without an entrypoint runs under the image's entrypoint; an
    // entrypoint given drops the image's command, which was meant for the other one.
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&user.entrypoint) {
        if is_empty(&user.cmd) {
            user.cmd.clone_from(&image.cmd);
            user.args_escaped = image.args_escaped;
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    // One empty word is how clients say "no entrypoint, not even the image's".
    if user
        .entrypoint
        .as_ref()
        .is_some_and(|words| words.len() == 1 && words[0].is_empty())
    {
        user.entrypoint = None;
    }
    if is_empty(&user.entrypoint) && is_empty(&user.cmd) {
        return Err(Error::invalid("no command specified"));
    }

    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut env = user.env.take().unwrap_or_default();
    for inherited in image.env.iter().flatten() {
        if !env.iter().any(|own| name_of(own) == name_of(inherited)) {
            env.push(inherited.clone());
        }
    }
    user.env = Some(env);

    if let Some(inherited) = &image.labels {
        let labels = user.labels.get_or_insert_default();
        for (name, value) in inherited {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    user.labels.get_or_insert_default();
    if let Some(inherited) = &image.exposed_ports {
        user.exposed_ports
            .get_or_insert_default()
            .extend(inherited.clone());
    }
    if let Some(inherited) = &image.volumes {
        user.volumes
            .get_or_insert_default()
            .extend(inherited.clone());
    }
    if user.stop_signal.as_ref().is_none_or(String::is_empty) {
        user.stop_signal.clone_from(&image.stop_signal);
    }
    if user.stop_timeout.is_none() {
        user.stop_timeout = image.stop_timeout;
    }
    if user.shell.is_none() {
        user.shell.clone_from(&image.shell);
    }
    user.healthcheck = merge_health(user.healthcheck, image.healthcheck.as_ref());
    if user.on_build.is_none() {
        user.on_build.clone_from(&image.on_build);
    }
    Ok(user)
}

/// Each setting that the user left at zero comes from the image.
fn merge_health(user: Option<HealthConfig>, image: Option<&HealthConfig>) -> Option<HealthConfig> {
    let (mut own, inherited) = match (user, image) {
        (None, image) => return image.cloned(),
        (Some(own), None) => return Some(own),
        (Some(own), Some(inherited)) => (own, inherited),
    };
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test.clone_from(&inherited.test);
    }
    for (value, other) in [
        (&mut own.interval, inherited.interval),
        (&mut own.timeout, inherited.timeout),
        (&mut own.start_period, inherited.start_period),
        (&mut own.start_interval, inherited.start_interval),
        (&mut own.retries, inherited.retries),
    ] {
        if *value == 0 {
            *value = other;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn commands_and_entrypoints() {
        let image = Config {
            entrypoint: words("/entry"),
            cmd: words("serve"),
            ..Config::default()
        };
        let merged = |entrypoint, cmd| {
            merge(
                Config {
                    entrypoint,
                    cmd,
                    ..Config::default()
                },
                &image,
            )
        };
        let both = |config: Config| (config.entrypoint, config.cmd);
        assert_eq!(
            both(merged(None, None).unwrap()),
            (words("/entry"), words("serve"))
        );
        assert_eq!(
            both(merged(None, words("x")).unwrap()),
            (words("/entry"), words("x"))
        );
        assert_eq!(
            both(merged(words("sh"), None).unwrap()),
            (words("sh"), None)
        );
        assert_eq!(
            both(merged(Some(vec![String::new()]), words("x")).unwrap()),
            (None, words("x"))
        );
        assert!(merge(Config::default(), &Config::default()).is_err());
    }

    #[test]
    fn environment_of_the_image_comes_behind() {
        let image = Config {
            env: words("PATH=/bin A=1"),
            cmd: words("x"),
            ..Config::default()
        };
        let user = Config {
            env: words("A=2 B=3"),
            ..Config::default()
        };
        assert_eq!(merge(user, &image).unwrap().env, words("A=2 B=3 PATH=/bin"));
    }
}
