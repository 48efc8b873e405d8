//! Everyday use of bollard: a volume, a network, two containers that find each other by name, logs, exec, removal.
//! It lies among bollard's own tests when it runs, and is built with them.

use bollard::{
    Docker,
    container::LogOutput,
    exec::StartExecResults,
    models::{
        ContainerCreateBody, EndpointSettings, ExecConfig, HostConfig, NetworkCreateRequest,
        NetworkingConfig, VolumeCreateRequest,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptions, StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::TryStreamExt as _;

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

async fn start(
    docker: &Docker,
    name: &str,
    command: &[&str],
) -> Result<String, bollard::errors::Error> {
    let endpoint = EndpointSettings {
        aliases: words(&["service"]),
        ..Default::default()
    };
    let body = ContainerCreateBody {
        image: Some("busybox".into()),
        cmd: words(command),
        host_config: Some(HostConfig {
            binds: words(&["everyday:/v"]),
            network_mode: Some("everyday".into()),
            ..Default::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some([("everyday".to_owned(), endpoint)].into()),
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let id = docker.create_container(Some(options), body).await?.id;
    docker
        .start_container(&id, None::<StartContainerOptions>)
        .await?;
    Ok(id)
}

fn text(output: &[LogOutput]) -> String {
    output.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn everyday() -> Result<(), Box<dyn std::error::Error>> {
    let docker = Docker::connect_with_defaults()?;
    let volume = VolumeCreateRequest {
        name: Some("everyday".into()),
        driver: Some("nfs".into()),
        driver_opts: Some([("size".to_owned(), "16M".to_owned())].into()),
        ..Default::default()
    };
    assert_eq!(docker.create_volume(volume).await?.driver, "nfs");
    let network = NetworkCreateRequest {
        name: "everyday".into(),
        ..Default::default()
    };
    docker.create_network(network).await?;

    let server = start(&docker, "server", &["httpd", "-f", "-h", "/v"]).await?;
    let script = "echo kept >/v/index.html; wget -q -O - http://server/; exit 7";
    let client = start(&docker, "client", &["sh", "-c", script]).await?;
    let ended: Vec<_> = docker
        .wait_container(&client, None::<WaitContainerOptions>)
        .try_collect()
        .await
        .unwrap_or_default();
    assert!(ended.iter().all(|end| end.status_code == 7));
    let state = docker
        .inspect_container(&client, None)
        .await?
        .state
        .unwrap_or_default();
    assert_eq!(state.exit_code, Some(7));
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .build();
    let logged: Vec<_> = docker.logs(&client, Some(options)).try_collect().await?;
    assert_eq!(text(&logged), "kept\n");

    let wanted = ExecConfig {
        cmd: words(&["cat", "/v/index.html"]),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let exec = docker.create_exec(&server, wanted).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&exec, None).await? else {
        return Err("the command runs detached".into());
    };
    let said: Vec<_> = output.try_collect().await?;
    assert_eq!(text(&said), "kept\n");
    assert_eq!(docker.inspect_exec(&exec).await?.exit_code, Some(0));

    for id in [&server, &client] {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        docker.remove_container(id, Some(options)).await?;
    }
    docker.remove_network("everyday").await?;
    docker
        .remove_volume("everyday", None::<RemoveVolumeOptions>)
        .await?;
    let gone = docker.inspect_container(&server, None).await;
    assert!(matches!(
        gone,
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404,
            ..
        })
    ));
    Ok(())
}
