//! `kraud serve`: the one place that names concrete drivers.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use agent::local::{LocalAgent, images::LocalImages};
use anyhow::{Context as _, bail};
use engine::Engine;
use network::Networks;
use runtime::Runtime;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

use crate::{cli, config::Config, instance::Instance, notify::notify, tls};

/// Runs the daemon until a signal ends it.
pub(crate) fn run(options: &cli::Serve) -> anyhow::Result<ExitCode> {
    let config = Config::load_for(
        &options.place,
        options.log.as_deref(),
        options.listen.as_deref(),
    )?;
    log_to_stderr(&config.log)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("kraud needs root: it makes mounts, network and control groups (sudo kraud serve)");
    }
    config.check()?;
    raise_file_limit();
    keep_secrets();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(serve(config))?;
    // A thread that hangs in the kernel must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => level.to_owned(),
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .with_context(|| format!("invalid log level {filter:?}"))?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .init();
    Ok(())
}

/// Each attached client and each published port holds a descriptor.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: hard,
            maximum: hard,
        },
    );
}

/// Keys and tokens in memory get into no core dump.
fn keep_secrets() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of kraud would hold secrets");
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    make_dir(&config.data_dir, 0o711)?;
    let instance = Instance::of(&config.data_dir)?;
    make_dir(Path::new("/run/kraud"), 0o755)?;
    make_dir(&instance.run_dir, 0o711)?;

    // The store's lock keeps a second daemon off this data directory; it comes first.
    let database = config.data_dir.join("store.db");
    let store = tokio::task::spawn_blocking(move || open_store(&database))
        .await
        .context("opening the store")??;
    let engine = wire(&config, &instance, Arc::new(store)).await?;
    let listener = listen(&config)?;
    let door = tls::open(&config, engine.identities()).await?;
    fs::write(instance.pid_file(), std::process::id().to_string())
        .context("writing the pid file")?;

    let network = match &door {
        Some(door) => format!(" and https://{}", door.listener.local_addr()?),
        None => String::new(),
    };
    println!(
        "kraud {} is ready on unix://{}{network} (data in {}, {} ms)",
        env!("CARGO_PKG_VERSION"),
        config.socket.display(),
        config.data_dir.display(),
        begun.elapsed().as_millis()
    );
    notify("READY=1");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let when_stopped = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    };
    let serving = tokio::spawn(api::serve(listener, engine.clone(), when_stopped()));
    let outside =
        door.map(|door| tokio::spawn(api::serve_tls(door, engine.clone(), when_stopped())));
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping; containers keep running"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping; containers keep running"),
    }
    notify("STOPPING=1");
    let _ = stop.send(true);
    engine.shut_down().await;
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        let _ = serving.await;
        if let Some(outside) = outside {
            let _ = outside.await;
        }
    })
    .await;
    let _ = fs::remove_file(&config.socket);
    let _ = fs::remove_file(instance.pid_file());
    // Where no container runs on, nothing is left; what it holds otherwise keeps a directory.
    remove_empty(&instance.run_dir);
    Ok(())
}

/// Removes a directory and those in it, as far as they are empty.
fn remove_empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Opens the store. A daemon that was killed a moment ago may still hold its lock while the
/// kernel takes it apart: that much time is given.
fn open_store(database: &Path) -> store::Result<store::Embedded> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
    let begun = std::time::Instant::now();
    loop {
        match store::Embedded::open(database) {
            Err(error) if error.to_string().contains("in use") && begun.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// Puts the drivers together.
async fn wire(
    config: &Config,
    instance: &Instance,
    store: Arc<dyn store::Store>,
) -> anyhow::Result<Engine> {
    let runtime = Runtime::new(runtime::Settings {
        run_dir: instance.run_dir.join("runtime"),
        shim: shim_path()?,
        runtimes: config.runtimes.clone(),
        default_runtime: config.default_runtime.clone(),
        cgroup_parent: instance.cgroup.clone(),
        init: config.init.clone(),
    })?;
    let networks = Networks::open(network::Settings {
        instance: instance.id.parse()?,
        run_dir: instance.run_dir.clone(),
    })
    .await?;
    let images = LocalImages::open(&config.data_dir, &config.insecure_registries).await?;
    let agent = LocalAgent::open(agent::local::Settings {
        data_dir: config.data_dir.clone(),
        run_dir: instance.run_dir.clone(),
        runtime,
        networks,
        images: images.clone(),
    })?;
    let settings = engine::Settings {
        data_dir: config.data_dir.clone(),
        bridge: instance.bridge.clone(),
        bridge_subnet: config.bridge_subnet.clone(),
        address_pools: config.address_pools.clone(),
        insecure_registries: config.insecure_registries.clone(),
        authorities: config.authorities.clone(),
        log_options: config.log_options.clone(),
        zone: config.zone.clone(),
    };
    Ok(Engine::open(settings, store, Arc::new(agent), Arc::new(images)).await?)
}

/// The shim lies beside the daemon's own binary.
fn shim_path() -> anyhow::Result<std::path::PathBuf> {
    let own = std::env::current_exe().context("finding kraud's own path")?;
    let beside = own.with_file_name("kraud-shim");
    if beside.is_file() {
        return Ok(beside);
    }
    crate::config::find_program(&["kraud-shim"]).with_context(|| {
        format!(
            "kraud-shim is missing: it must lie beside kraud ({})",
            beside.display()
        )
    })
}

fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

/// Binds the socket, for root and the group. One that nobody answers on is a leftover.
fn listen(config: &Config) -> anyhow::Result<UnixListener> {
    let path = &config.socket;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!(
            "the socket {} is in use by another program: choose one with --socket",
            path.display()
        );
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("removing the leftover socket {}", path.display()));
        }
        _ => {}
    }
    // Closed to all until group and mode are right.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener =
        UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()));
    nix::sys::stat::umask(mask);
    let listener = listener?;
    let group = nix::unistd::Group::from_name(&config.group)
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw());
    if group.is_none() {
        tracing::info!(
            group = config.group,
            "there is no such group: only root can use the socket (groupadd --system {0})",
            config.group
        );
    }
    chown(path, Some(0), Some(group.unwrap_or(0))).context("giving the socket to its group")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .context("opening the socket to its group")?;
    Ok(listener)
}
