import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { KubeApi } from '../../test/kube-api.ts';
import { applyCrd, compareVersions } from './crd.ts';

const api = await KubeApi.start();
const kube = api.client();
const folder = mkdtempSync(join(tmpdir(), 'tidegate-crd-'));
afterAll(async () => {
  rmSync(folder, { recursive: true });
  kube.close();
  await api.stop();
});

const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/connectionpolicies.tidegate.dev';
const shipped = 'charts/tidegate/crds/connectionpolicies.yaml';

test('brings a definition up to date, and leaves one alone that is newer', async () => {
  api.put(path, { metadata: { annotations: { 'tidegate.dev/version': '0.0.9' } }, spec: { old: true } });
  expect(await applyCrd(kube, shipped)).toMatch(/is now from .+, and was from 0\.0\.9/);
  expect(api.get(path)?.spec).toMatchObject({ group: 'tidegate.dev' });
  api.put(path, { metadata: { annotations: { 'tidegate.dev/version': '99.0.0' } }, spec: { newer: true } });
  expect(await applyCrd(kube, shipped)).toMatch(/it stays/);
  expect(api.get(path)?.spec).toEqual({ newer: true });
});

test('applies nothing else, and says what is wrong', async () => {
  const file = join(folder, 'other.yaml');
  writeFileSync(file, 'kind: ConfigMap\nmetadata: {name: x}\n');
  await expect(applyCrd(kube, file)).rejects.toThrow('holds no CustomResourceDefinition');
  writeFileSync(file, '');
  await expect(applyCrd(kube, file)).rejects.toThrow('holds no CustomResourceDefinition');
});

test('compares versions by their numbers', () => {
  expect(compareVersions('0.10.0', '0.9.9')).toBeGreaterThan(0);
  expect(compareVersions('1.0.0', '1.0.0-rc.1')).toBe(0);
  expect(compareVersions('0.1.0', '0.1.1')).toBeLessThan(0);
  expect(compareVersions('nonsense', '0.0.0')).toBe(0);
});
