// Everyday use of dockerode. One line per step: `ok NAME` or `not ok NAME`.
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';
import assert from 'node:assert/strict';

const Docker = createRequire(process.env.NODE_MODULES + '/')('dockerode');
const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });

const text = async (stream) => {
  let all = '';
  for await (const part of stream) all += part;
  return all;
};

const steps = {
  async version_and_info() {
    assert.match((await docker.version()).ApiVersion, /^1\.\d+$/);
    assert.equal((await docker.info()).OSType, 'linux');
  },
  async run_to_its_end() {
    const said = new PassThrough();
    const all = text(said);
    const [result, container] = await docker.run('busybox', ['sh', '-c', 'echo out; exit 3'], said, { Tty: true });
    said.end();
    assert.equal(result.StatusCode, 3);
    assert.match(await all, /out/);
    await container.remove();
  },
  async life_of_a_container() {
    const container = await docker.createContainer({ Image: 'busybox', name: 'ode', Cmd: ['sleep', '1000'], Labels: { a: 'b' } });
    await container.start();
    assert.equal((await container.inspect()).State.Status, 'running');
    const found = await docker.listContainers({ filters: { label: ['a=b'] } });
    assert.deepEqual(found.map((one) => one.Names), [['/ode']]);
    await container.pause();
    await container.unpause();
    await container.rename({ name: 'ode2' });
    await container.restart({ t: 0 });
    assert.ok((await container.stats({ stream: false })).memory_stats.usage > 0);
    await container.stop({ t: 0 });
    assert.equal((await container.wait()).StatusCode, 137);
    await container.remove();
    await assert.rejects(container.inspect(), (error) => error.statusCode === 404);
  },
  async logs_and_exec() {
    const container = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'echo one; echo two >&2; sleep 1000'] });
    await container.start();
    const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const out = new PassThrough();
    docker.modem.demuxStream(stream, out, out);
    stream.on('end', () => out.end());
    stream.end('through and back');
    assert.equal(await text(out), 'through and back');
    assert.equal((await exec.inspect()).ExitCode, 0);
    let logged = '';
    for (let turn = 0; turn < 50 && !/one[^]*two/.test(logged); turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      logged = (await container.logs({ stdout: true, stderr: true })).toString();
    }
    assert.match(logged, /one[^]*two/);
    await container.remove({ force: true });
  },
  async volumes_and_networks() {
    const volume = await docker.createVolume({ Name: 'ode', Driver: 'nfs', DriverOpts: { size: '16M' } });
    const network = await docker.createNetwork({ Name: 'ode' });
    const make = (name, cmd) =>
      docker.createContainer({
        Image: 'busybox', name, Cmd: cmd, HostConfig: { Binds: ['ode:/v'], NetworkMode: 'ode' },
      });
    const one = await make('one', ['httpd', '-f', '-h', '/v']);
    await one.start();
    const two = await make('two', ['sh', '-c', 'echo kept >/v/index.html; wget -q -O - http://one/']);
    await two.start();
    assert.equal((await two.wait()).StatusCode, 0);
    assert.match((await two.logs({ stdout: true })).toString(), /kept/);
    assert.equal(Object.keys((await network.inspect()).Containers).length, 1);
    await one.remove({ force: true });
    await two.remove();
    await network.remove();
    await volume.remove();
  },
  async events() {
    const stream = await docker.getEvents({ filters: { type: ['volume'] } });
    const next = new Promise((resolve) => stream.once('data', (data) => resolve(JSON.parse(data))));
    const volume = await docker.createVolume({ Name: 'seen' });
    assert.equal((await next).Actor.ID, 'seen');
    stream.destroy();
    await volume.remove();
  },
};

let failed = 0;
for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}`);
    console.error(error);
  }
}
process.exit(failed ? 1 : 0);
