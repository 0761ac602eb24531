// A stage: a running gateway, two bystanders that talk all the time, and what no attack may change.

import { appendFileSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { startGateway, type TestGateway } from '../test/gateway.ts';
import { until } from '../test/until.ts';
import { Bystanders } from './bystanders.ts';
import { MIB, residentBytes, watchMemory } from './memory.ts';

/** The namespaces of every stage. */
export const channels = JSON.stringify({
  namespaces: {
    room: { subscribe: 'anyone', publish: 'anyone', presence: true },
    log: { subscribe: 'anyone', publish: 'anyone', durable: { messages: 1000, ageSeconds: 3600 } },
    claimed: { subscribe: 'claim', publish: 'claim' },
  },
});

/** How much an attack may add to the resident memory of the gateway at any moment, unless it says otherwise. Most of
 * it is garbage that the engine has not collected yet: what an attack could really hold is bounded in the thousands. */
const DEFAULT_BOUND_MIB = 128;

/** So many messages are exchanged by the bystanders after an attack, before they are asked what they saw. */
const MESSAGES_AFTER = 10;

/** An attack, as it stands in the table of docs/reliability.md. */
export interface Attack {
  /** What the attacker does. */
  readonly does: string;
  /** What the gateway answers. */
  readonly answer: string;
  readonly boundMib?: number;
}

/** A gateway under attack. */
export interface Stage {
  readonly gateway: TestGateway;
  /** Runs an attack as a test: what it throws fails it, and so does whatever it changes for others. */
  attack(attack: Attack, run: () => Promise<void>): void;
}

/** Starts a gateway with these settings and its bystanders. They are stopped after the last test of the file. */
export async function openStage(
  theme: string,
  env: Record<string, string> = {},
  bystanderQuery: (user: string) => string = () => '',
): Promise<Stage> {
  const gateway = await startGateway({ CHANNELS: channels, ...env });
  const bystanders = await Bystanders.open(gateway.url, bystanderQuery);
  const pid = gateway.process.pid ?? 0;
  afterAll(async () => {
    await bystanders.leave();
    expect(await gateway.stop()).toBe(0);
  });
  return {
    gateway,
    attack({ does, answer, boundMib = DEFAULT_BOUND_MIB }, run) {
      test(`${does}: ${answer}`, async () => {
        const from = { log: gateway.log.length, count: bystanders.count };
        const before = await residentBytes(pid);
        const memory = watchMemory(pid);
        try {
          await run();
        } finally {
          await memory.stop();
        }
        // Nothing of the attack is left.
        await until(async () => (await gateway.metric('tidegate_connections')) === 2, {
          what: 'all but the bystanders to be gone',
        });
        await until(async () => (await gateway.metric('tidegate_backlog_bytes')) === 0, {
          what: 'nothing to wait for anybody',
        });
        expect(gateway.log.slice(from.log).filter(({ level = 0 }) => level >= 50)).toEqual([]);
        expect(await gateway.metric('tidegate_errors_total', { code: 'internal' })).toBe(0);
        expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
        // Nobody else has noticed.
        const end = bystanders.count + MESSAGES_AFTER;
        await until(() => bystanders.count >= end || bystanders.disturbances.length > 0, {
          what: 'the bystanders to go on',
        });
        expect(bystanders.disturbances).toEqual([]);
        expect(memory.peakBytes - before).toBeLessThan(boundMib * MIB);
        note({
          theme,
          does,
          answer,
          beforeMib: before / MIB,
          peakMib: memory.peakBytes / MIB,
          afterMib: (await residentBytes(pid)) / MIB,
          exchanged: bystanders.count - from.count,
        });
      });
    },
  };
}

/** What an attack came to, as report.ts reads it. */
export interface Figure {
  readonly theme: string;
  readonly does: string;
  readonly answer: string;
  readonly beforeMib: number;
  readonly peakMib: number;
  readonly afterMib: number;
  /** Messages that the bystanders exchanged meanwhile, each once and in order, or the attack has failed. */
  readonly exchanged: number;
}

function note(figure: Figure): void {
  const file = process.env.HOSTILE_FIGURES;
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(figure)}\n`);
}
