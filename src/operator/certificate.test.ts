import { X509Certificate } from 'node:crypto';
import { afterAll, expect, test } from 'vitest';
import { KubeApi } from '../../test/kube-api.ts';
import { isDue, makeCertificate, readCertificate, writeCertificate } from './certificate.ts';

const api = await KubeApi.start();
const kube = api.client();
afterAll(async () => {
  kube.close();
  await api.stop();
});

const name = 'tidegate-operator.chat.svc';
const path = '/api/v1/namespaces/chat/secrets/tidegate-operator-tls';
const day = 86_400_000;
const signal = new AbortController().signal;

test('is for its Service alone, good for some months, and replaced when a third is left', async () => {
  const now = Date.now();
  const made = await makeCertificate(name, undefined, now);
  const parsed = new X509Certificate(made.certificate);
  expect(parsed.checkHost(name)).toBe(name);
  expect(parsed.checkHost('tidegate-operator.other.svc')).toBeUndefined();
  expect(parsed.verify(parsed.publicKey)).toBe(true);
  expect(Date.parse(parsed.validTo) - now).toBeGreaterThan(89 * day);
  expect(isDue(made, now + 59 * day)).toBe(false);
  expect(isDue(made, now + 61 * day)).toBe(true);
});

test('is kept in the Secret, unless somebody else was faster', async () => {
  api.put(path, { data: {} });
  const empty = await readCertificate(kube, path, name);
  expect(empty.stored).toBeUndefined();
  const one = await makeCertificate(name, undefined, Date.now());
  await writeCertificate(kube, path, empty.resourceVersion, one, signal);
  const read = await readCertificate(kube, path, name);
  expect(read.stored).toEqual(one);
  const two = await makeCertificate(name, one, Date.now());
  await expect(writeCertificate(kube, path, empty.resourceVersion, two, signal)).rejects.toMatchObject({
    status: 409,
  });
  await writeCertificate(kube, path, read.resourceVersion, two, signal);
  expect((await readCertificate(kube, path, name)).stored?.certificate).toBe(two.certificate);
});

test('is trusted together with the one before, which a replica may still show', async () => {
  const one = await makeCertificate(name, undefined, Date.now());
  const two = await makeCertificate(name, one, Date.now());
  const three = await makeCertificate(name, two, Date.now());
  expect(two.trust).toContain(one.certificate.trim());
  expect(two.trust).toContain(two.certificate.trim());
  expect(three.trust).not.toContain(one.certificate.trim());
});

test('counts as none where it is broken, over, or for another name', async () => {
  const good = await makeCertificate(name, undefined, Date.now());
  const old = await makeCertificate(name, undefined, Date.now() - 100 * day);
  const other = await makeCertificate('other.chat.svc', undefined, Date.now());
  for (const [certificate, key] of [
    ['', ''],
    ['no certificate', good.key],
    [old.certificate, old.key],
    [other.certificate, other.key],
  ] as const) {
    const encode = (text: string) => Buffer.from(text).toString('base64');
    api.put(path, {
      data: { 'tls.crt': encode(certificate), 'tls.key': encode(key), 'ca.crt': encode(certificate) },
    });
    expect((await readCertificate(kube, path, name)).stored).toBeUndefined();
  }
});
