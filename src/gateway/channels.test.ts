import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { json, name, wildText } from '../../test/arbitraries.ts';
import { Channels, ChannelsError, grantsOf, NO_GRANTS, readChannels } from './channels.ts';

const options = { plainChannel: 'ws_broadcast', maxMessageBytes: 65_536, anonymous: false };

/** The faults of a channels file; none where it can be used. */
async function faultsOf(text: string, given = options): Promise<readonly string[]> {
  try {
    await readChannels(text, given);
    return [];
  } catch (error) {
    if (error instanceof ChannelsError) return error.faults;
    throw error;
  }
}

const policy = `
namespaces:
  room: {subscribe: anyone, publish: anyone, presence: true}
  doc: {subscribe: claim, publish: claim}
  news: {subscribe: anyone, publish: api, slow: drop, maxMessageBytes: 1000}
`;

describe('readChannels', () => {
  it('has just the plain channel’s namespace where there is no file, raw and open to anyone', async () => {
    const channels = await readChannels(undefined, options);
    expect(channels.namespace('ws_broadcast')).toMatchObject({
      name: 'ws_broadcast',
      raw: true,
      maxMessageBytes: 65_536,
    });
    expect(channels.maySubscribe('ws_broadcast', NO_GRANTS)).toBe(true);
    expect(channels.mayPublish('ws_broadcast', NO_GRANTS)).toBe(true);
    expect(channels.namespace('room:1')).toBeUndefined();
  });

  it('keeps the plain channel’s namespace beside others, unless the file has its own', async () => {
    const beside = await readChannels(policy, options);
    expect(beside.namespace('ws_broadcast')?.raw).toBe(true);
    const own = await readChannels('namespaces: {room: {subscribe: anyone, publish: api}}', {
      ...options,
      plainChannel: 'room:lobby',
    });
    expect(own.namespace('room:lobby')).toMatchObject({ name: 'room', raw: false });
    expect(own.namespace('ws_broadcast')).toBeUndefined();
  });

  it('reads YAML and JSON alike', async () => {
    const yaml = await readChannels(policy, options);
    const asJson = await readChannels(
      JSON.stringify({
        namespaces: {
          room: { subscribe: 'anyone', publish: 'anyone', presence: true },
          doc: { subscribe: 'claim', publish: 'claim' },
          news: { subscribe: 'anyone', publish: 'api', slow: 'drop', maxMessageBytes: 1000 },
        },
      }),
      options,
    );
    for (const channel of ['room:1', 'doc:1', 'news:1', 'other:1'])
      expect(asJson.namespace(channel)).toEqual(yaml.namespace(channel));
    expect(yaml.namespace('news')).toMatchObject({ slow: 'drop', maxMessageBytes: 1000 });
    expect(yaml.namespace('room:1')).toMatchObject({
      slow: 'disconnect',
      maxMessageBytes: 65_536,
      presence: true,
      presenceEvents: false,
    });
  });

  it('lists every fault at once, with the place it stands at', async () => {
    const faults = await faultsOf(`
send: everybody
colour: blue
namespaces:
  room: {subscribe: all, publish: anyone, presense: true}
  doc: {publish: 7, raw: "yes"}
  news: 5
  "bad name": {subscribe: anyone, publish: anyone}
  tg: {subscribe: anyone, publish: anyone}
  both: {subscribe: anyone, publish: anyone, raw: true, presence: true, slow: never}
  events: {subscribe: anyone, publish: anyone, presenceEvents: true}
  large: {subscribe: anyone, publish: anyone, maxMessageBytes: 65537}
  small: {subscribe: anyone, publish: anyone, maxMessageBytes: 0}
`);
    const expected = [
      /^send: .*anyone/,
      /^the file: there is no key "colour": there are send, namespaces$/,
      /^namespaces\.room\.subscribe: .*anyone.*claim.*api/,
      /^namespaces\.room: there is no key "presense": is it "presence" that you mean\?$/,
      /^namespaces\.doc\.subscribe: /,
      /^namespaces\.doc\.publish: /,
      /^namespaces\.doc\.raw: /,
      /^namespaces\.news: .*object/,
      /^namespaces\.bad name: a namespace is 1 to 128 of /,
      /^namespaces\.tg: .*is not "tg"/,
      /^namespaces\.both\.slow: /,
      /^namespaces\.both: raw and presence exclude each other/,
      /^namespaces\.events: presenceEvents needs presence/,
      /^namespaces\.large\.maxMessageBytes: must be at most MAX_MESSAGE_BYTES, which is 65536/,
      /^namespaces\.small\.maxMessageBytes: /,
    ];
    for (const fault of expected) expect(faults).toContainEqual(expect.stringMatching(fault));
    expect(faults).toHaveLength(expected.length);
  });

  it('refuses what is no YAML, says where, and does not go on for ever', async () => {
    const [fault] = await faultsOf('namespaces:\n  room: {subscribe: anyone\n  doc: [');
    expect(fault).toMatch(/line \d/);
    expect((await faultsOf('['.repeat(5000))).length).toBeLessThanOrEqual(10);
    for (const text of ['', 'a text', '7', '[]', 'null', 'namespaces:'])
      expect(await faultsOf(text), text).toHaveLength(1);
    expect(
      await faultsOf(
        'namespaces: {room: {subscribe: anyone, publish: api}, room: {subscribe: api, publish: api}}',
      ),
    ).toEqual([expect.stringMatching(/unique/)]);
  });

  it('refuses aliases, with which a short text can stand for gigabytes', async () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x,x]'];
    for (let level = 1; level < 12; level += 1) {
      const [last, next] = [level - 1, level].map((at) => String.fromCharCode(97 + at));
      bomb.push(`${next}: &${next} [${Array(10).fill(`*${last}`).join(',')}]`);
    }
    expect(await faultsOf(bomb.join('\n'))).toEqual([expect.stringMatching(/alias/i)]);
    expect(await faultsOf('namespaces: {room: &r {subscribe: anyone, publish: anyone}, doc: *r}')).toEqual([
      expect.stringMatching(/alias/i),
    ]);
    expect(await faultsOf('namespaces: *nowhere')).toEqual([expect.stringMatching(/alias/i)]);
  });

  it('gives namespaces or faults for any text and any value', async () => {
    const namespace = fc.dictionary(
      fc.constantFrom(
        'subscribe',
        'publish',
        'raw',
        'presence',
        'presenceEvents',
        'slow',
        'maxMessageBytes',
        '__proto__',
      ),
      fc.oneof(json, fc.constantFrom('anyone', 'claim', 'api')),
    );
    const value = fc.record({
      send: fc.option(json),
      namespaces: fc.oneof(json, fc.dictionary(fc.oneof(name, wildText), fc.oneof(json, namespace))),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          wildText,
          json.map((it) => JSON.stringify(it)),
          value.map((it) => JSON.stringify(it)),
        ),
        async (text) => {
          for (const fault of await faultsOf(text)) expect(fault).not.toBe('');
        },
      ),
      { numRuns: 300 },
    );
    expect(({} as Record<string, unknown>).subscribe).toBeUndefined();
  });
});

describe('Channels', () => {
  const grants = grantsOf({
    channels: { subscribe: ['doc:1', 'doc:team-*', 'news:*'], publish: ['doc:1', 'news:*'] },
    send: ['bob', 'team-*'],
  });

  it('denies what nothing allows', async () => {
    const channels = await readChannels(policy, options);
    for (const channel of ['other:1', 'roo', 'rooms:1', '', ':', 'doc', 'doc:2', 'doc:team']) {
      expect(channels.maySubscribe(channel, grants), channel).toBe(false);
      expect(channels.mayPublish(channel, grants), channel).toBe(false);
    }
    expect(channels.maySubscribe('doc:1', NO_GRANTS)).toBe(false);
  });

  it('allows anyone where the namespace does, whatever the token says', async () => {
    const channels = await readChannels(policy, options);
    expect(channels.maySubscribe('room:1', NO_GRANTS)).toBe(true);
    expect(channels.mayPublish('room', NO_GRANTS)).toBe(true);
    expect(channels.maySubscribe('news:1', NO_GRANTS)).toBe(true);
  });

  it('allows by claim the very name and what begins with a prefix', async () => {
    const channels = await readChannels(policy, options);
    expect(channels.maySubscribe('doc:1', grants)).toBe(true);
    expect(channels.maySubscribe('doc:10', grants)).toBe(false);
    expect(channels.maySubscribe('doc:team-7', grants)).toBe(true);
    expect(channels.mayPublish('doc:team-7', grants)).toBe(false);
    expect(channels.maySubscribe('doc:7', grantsOf({ channels: { subscribe: ['*'] } }))).toBe(true);
  });

  it('leaves to the API what is only the API’s, whatever the token says', async () => {
    const channels = await readChannels(policy, options);
    expect(channels.mayPublish('news:1', grants)).toBe(false);
    expect(channels.mayPublish('news:1', grantsOf({ channels: { publish: ['*'] } }))).toBe(false);
  });

  it.each([
    ['anyone', true, true],
    ['claim', true, false],
    ['api', false, false],
  ])('lets send to users by the setting %s', async (send, byClaim, byAnyone) => {
    const channels = await readChannels(`{send: ${send}, namespaces: {}}`, options);
    expect(channels.maySend('bob', grants)).toBe(byClaim);
    expect(channels.maySend('eve', grants)).toBe(byAnyone);
    expect(channels.maySend('bob', NO_GRANTS)).toBe(byAnyone);
  });

  it('lets anyone send where there are no tokens, else those whose claim says so, unless the file says otherwise', async () => {
    const open = await readChannels(undefined, { ...options, anonymous: true });
    expect(open.maySend('bob', NO_GRANTS)).toBe(true);
    const closed = await readChannels(undefined, options);
    expect(closed.maySend('bob', NO_GRANTS)).toBe(false);
    expect(closed.maySend('team-a', grants)).toBe(true);
    const told = await readChannels('{send: api, namespaces: {}}', { ...options, anonymous: true });
    expect(told.maySend('bob', NO_GRANTS)).toBe(false);
  });
});

describe('a refusal', () => {
  it('says whether the namespace, the API or the claims are the reason', async () => {
    const channels = await readChannels(policy, options);
    expect(channels.refusal('nope:1', 'subscribe')).toMatch(/no namespace "nope"/);
    expect(channels.refusal('news:1', 'publish')).toMatch(/only the HTTP API/);
    expect(channels.refusal('doc:1', 'publish')).toMatch(/claims do not name it/);
  });
});

describe('grantsOf', () => {
  it('takes names and prefixes', () => {
    expect(
      grantsOf({ channels: { subscribe: ['a', 'a:*', '*'], publish: ['b'] }, send: ['bob', 'team-*'] }),
    ).toEqual({
      subscribe: ['a', 'a:*', '*'],
      publish: ['b'],
      send: ['bob', 'team-*'],
    });
  });

  it('grants nothing for what is neither', () => {
    for (const claim of [
      '*',
      'a',
      7,
      null,
      true,
      {},
      { 0: 'a' },
      [['a']],
      [7],
      [null],
      [''],
      ['**'],
      ['a*b'],
      ['*a'],
      ['a b'],
      ['ä'],
      ['a\n'],
    ]) {
      expect(
        grantsOf({ channels: { subscribe: claim, publish: claim }, send: claim }),
        JSON.stringify(claim),
      ).toBe(NO_GRANTS);
    }
    for (const channels of ['*', ['*'], null, 7, undefined]) expect(grantsOf({ channels })).toBe(NO_GRANTS);
    expect(grantsOf(JSON.parse('{"__proto__":{"send":["*"]}}') as Record<string, unknown>)).toBe(NO_GRANTS);
  });

  it('grants, for any claims at all, nothing but names and prefixes, and no name that no grant begins like', () => {
    const claims = fc.record({
      channels: fc.oneof(
        json,
        fc.record({
          subscribe: fc.oneof(
            json,
            fc.array(
              fc.oneof(
                name,
                name.map((it) => `${it}*`),
                json,
              ),
            ),
          ),
          publish: json,
        }),
      ),
      send: fc.oneof(json, fc.array(json)),
    });
    const open = new Channels(new Map(), 'claim');
    fc.assert(
      fc.property(claims, name, (given, user) => {
        const grants = grantsOf(given);
        for (const pattern of [...grants.subscribe, ...grants.publish, ...grants.send])
          expect(pattern).toMatch(/^(\*|[A-Za-z0-9._~@:/-]{1,128}\*?)$/);
        const expected = grants.send.some(
          (it) => it === user || (it.endsWith('*') && user.startsWith(it.slice(0, -1))),
        );
        expect(open.maySend(user, grants)).toBe(expected);
      }),
      { numRuns: 500 },
    );
  });
});
