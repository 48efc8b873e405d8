# Words for the compose suites; sourced after e2e/lib.sh, whose assertions are used.

FIXTURES=$E2E_SUITES
mkdir -p "$DOCKER_CONFIG/cli-plugins"
ln -sfn "$COMPOSE_PLUGIN" "$DOCKER_CONFIG/cli-plugins/docker-compose"

# project NAME: a copy of a fixture to work in.
project() { cp -r "$FIXTURES/$1/." .; export COMPOSE_PROJECT_NAME=$1; }
dc() { docker compose "$@"; }
# Networks and volumes are not swept up as containers are.
gone() { dc --profile '*' down -v --remove-orphans -t 1 >/dev/null 2>&1; }
one_of() { docker ps -q --filter "label=com.docker.compose.service=$1" | head -n1; }
count_of() { docker ps -q --filter "label=com.docker.compose.service=$1" | wc -l; }

