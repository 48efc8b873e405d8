//! The one table of the Docker Engine API: every call of the published specification, how
//! far it is done, and its handler. `docs/docker-compat.md` is generated from it.

use std::sync::LazyLock;

use axum::http::Method;
use engine::Engine;
use types::Access;

use super::{
    auth, build, containers as c, dispatch,
    dispatch::{
        Handler, Route,
        Support::{Full, NotYet, Partial},
    },
    events, exec, images, networks, plugins, swarm, system, volumes,
};

/// The handlers' shared state is the engine; nothing else.
pub(super) type Call = super::call::Call<Engine>;

/// A row. The handler is an async function from a [`Call`] to a response.
macro_rules! row {
    ($method:ident $path:literal $support:expr, $handler:path) => {
        Route {
            method: Method::$method,
            path: $path,
            support: $support,
            access: dispatch::usual_access(&Method::$method),
            handler: (|call| Box::pin($handler(call))) as Handler<Engine>,
        }
    };
}

const NO_BUILD: &str = "images are built elsewhere (docker buildx with its own builder, buildah, kaniko) and then loaded or pulled";
const NO_SWARM: &str = "kraud is not a swarm; it answers as a docker engine outside of one";
const NO_PLUGINS: &str = "kraud takes no docker plugins; volume classes and networks are built in";

/// Paths are matched in this order, so exact ones stand before those with a wildcard.
static TABLE: LazyLock<Vec<Route<Engine>>> = LazyLock::new(|| {
    let mut rows = container_rows();
    rows.extend(image_rows());
    rows.extend(system_rows());
    rows.extend(volume_and_network_rows());
    rows.extend(plugin_rows());
    rows.extend(swarm_rows());
    rows
});

/// Every call of the API.
pub fn table() -> &'static [Route<Engine>] {
    &TABLE
}

/// The API as a service.
pub fn router(engine: Engine) -> axum::Router {
    dispatch::router(table(), engine)
}

fn container_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/containers/json" Full, c::list::list),
        row!(POST "/containers/create" Full, c::create::create),
        row!(POST "/containers/prune" Full, c::lifecycle::prune),
        row!(GET "/containers/{id}/json" Full, c::list::inspect),
        row!(GET "/containers/{id}/top" Full, c::io::top),
        row!(GET "/containers/{id}/logs" Full, c::io::logs),
        row!(GET "/containers/{id}/changes" Full, c::archive::changes),
        row!(GET "/containers/{id}/export" Full, c::archive::export),
        row!(GET "/containers/{id}/stats" Full, c::stats::stats),
        row!(POST "/containers/{id}/resize" Full, c::io::resize),
        row!(POST "/containers/{id}/start" Partial("no checkpoints"), c::lifecycle::start),
        row!(POST "/containers/{id}/stop" Full, c::lifecycle::stop),
        row!(POST "/containers/{id}/restart" Full, c::lifecycle::restart),
        row!(POST "/containers/{id}/kill" Full, c::lifecycle::kill),
        row!(POST "/containers/{id}/update" Full, c::lifecycle::update),
        row!(POST "/containers/{id}/rename" Full, c::lifecycle::rename),
        row!(POST "/containers/{id}/pause" Full, c::lifecycle::pause),
        row!(POST "/containers/{id}/unpause" Full, c::lifecycle::unpause),
        row!(POST "/containers/{id}/attach" Full, c::io::attach),
        row!(GET "/containers/{id}/attach/ws" Full, c::io::attach_ws).needs(Access::Write),
        row!(POST "/containers/{id}/wait" Full, c::lifecycle::wait).needs(Access::Read),
        row!(HEAD "/containers/{id}/archive" Full, c::archive::stat),
        row!(GET "/containers/{id}/archive" Full, c::archive::get),
        row!(PUT "/containers/{id}/archive" Full, c::archive::put),
        row!(POST "/containers/{id}/exec" Full, exec::create),
        row!(DELETE "/containers/{id}" Full, c::lifecycle::remove),
        row!(POST "/exec/{id}/start" Full, exec::start),
        row!(POST "/exec/{id}/resize" Full, exec::resize),
        row!(GET "/exec/{id}/json" Full, exec::inspect),
        row!(POST "/commit" Full, c::commit::commit),
    ]
}

fn image_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/images/json" Partial("manifests=1 gives no list of manifests"), images::list),
        row!(POST "/images/create" Partial("fromSrc takes the request's body, no URL"), images::create),
        row!(GET "/images/search" NotYet("search the registry's own web page or API"), images::search),
        row!(POST "/images/prune" Full, images::prune),
        row!(GET "/images/get" Partial("platform is ignored"), images::save_many),
        row!(POST "/images/load" Full, images::load).needs(Access::Push),
        row!(GET "/images/{name}/get" Partial("platform is ignored"), images::save_one),
        row!(GET "/images/{name}/json" Partial("manifests=1 gives no list of manifests"), images::inspect).needs(Access::Known),
        row!(GET "/images/{name}/history" Full, images::history),
        row!(POST "/images/{name}/push" Full, images::push),
        row!(POST "/images/{name}/tag" Full, images::tag).needs(Access::Push),
        row!(DELETE "/images/{name}" Full, images::remove),
        row!(GET "/distribution/{name}/json" Full, images::distribution),
        row!(POST "/build" NotYet(NO_BUILD), build::build),
        row!(POST "/build/prune" Full, build::prune),
        row!(POST "/session" NotYet(NO_BUILD), build::session),
    ]
}

fn system_rows() -> Vec<Route<Engine>> {
    vec![
        row!(POST "/auth" Full, auth::check),
        row!(GET "/info" Full, system::info),
        row!(GET "/version" Full, system::version).needs(Access::Known),
        row!(GET "/_ping" Full, system::ping).needs(Access::Known),
        row!(HEAD "/_ping" Full, system::ping).needs(Access::Known),
        row!(GET "/events" Full, events::events),
        row!(GET "/system/df" Full, system::disk_usage),
    ]
}

fn volume_and_network_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/volumes" Full, volumes::list),
        row!(POST "/volumes/create" Partial("drivers are the classes nfs, gfs, lv2, lv1 (and local); no cluster volumes"), volumes::create),
        row!(POST "/volumes/prune" Full, volumes::prune),
        row!(GET "/volumes/{name}" Full, volumes::inspect),
        row!(PUT "/volumes/{name}" NotYet("only swarm's cluster volumes can be updated, and kraud is not a swarm"), volumes::update),
        row!(DELETE "/volumes/{name}" Full, volumes::remove),
        row!(GET "/networks" Full, networks::list),
        row!(POST "/networks/create" Partial("drivers bridge and macvlan; no ipvlan, no configuration-only networks, no gateway mode routed"), networks::create),
        row!(POST "/networks/prune" Full, networks::prune),
        row!(GET "/networks/{id}" Full, networks::inspect),
        row!(DELETE "/networks/{id}" Full, networks::remove),
        row!(POST "/networks/{id}/connect" Full, networks::connect),
        row!(POST "/networks/{id}/disconnect" Full, networks::disconnect),
    ]
}

fn plugin_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/plugins" Full, plugins::list),
        row!(GET "/plugins/privileges" NotYet(NO_PLUGINS), plugins::refuse),
        row!(POST "/plugins/pull" NotYet(NO_PLUGINS), plugins::refuse),
        row!(POST "/plugins/create" NotYet(NO_PLUGINS), plugins::refuse),
        row!(GET "/plugins/{name}/json" Full, plugins::missing),
        row!(POST "/plugins/{name}/enable" Full, plugins::missing),
        row!(POST "/plugins/{name}/disable" Full, plugins::missing),
        row!(POST "/plugins/{name}/upgrade" NotYet(NO_PLUGINS), plugins::refuse),
        row!(POST "/plugins/{name}/push" NotYet(NO_PLUGINS), plugins::refuse),
        row!(POST "/plugins/{name}/set" Full, plugins::missing),
        row!(DELETE "/plugins/{name}" Full, plugins::missing),
    ]
}

fn swarm_rows() -> Vec<Route<Engine>> {
    vec![
        row!(GET "/nodes" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/nodes/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(DELETE "/nodes/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/nodes/{id}/update" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/swarm" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/swarm/init" NotYet(NO_SWARM), swarm::refuse),
        row!(POST "/swarm/join" NotYet(NO_SWARM), swarm::refuse),
        row!(POST "/swarm/leave" NotYet(NO_SWARM), swarm::no_swarm),
        row!(POST "/swarm/update" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/swarm/unlockkey" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/swarm/unlock" NotYet(NO_SWARM), swarm::no_swarm),
        row!(GET "/services" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/services/create" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/services/{id}/logs" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/services/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(DELETE "/services/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/services/{id}/update" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/tasks" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/tasks/{id}/logs" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/tasks/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/secrets" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/secrets/create" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/secrets/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(DELETE "/secrets/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/secrets/{id}/update" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/configs" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/configs/create" NotYet(NO_SWARM), swarm::no_manager),
        row!(GET "/configs/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(DELETE "/configs/{id}" NotYet(NO_SWARM), swarm::no_manager),
        row!(POST "/configs/{id}/update" NotYet(NO_SWARM), swarm::no_manager),
    ]
}
