// The operator's own serving certificate: made by the leader, kept in a Secret that all replicas read, and replaced long
// before it ends. It signs itself, and the API server is told to trust just it.

import 'reflect-metadata'; // the library below wants it
import { X509Certificate } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { Kube } from './kube.ts';
import type { KeyPair } from './metrics-api.ts';
import type { SecretObject } from './objects.ts';

const DAY_MS = 86_400_000;
const LIFE_DAYS = 90;
/** Replaced when a third of its life is left, so that a month of trouble is survived. */
const REPLACE_DAYS = 30;

/** What the Secret holds. */
export interface StoredCertificate extends KeyPair {
  /** What whoever connects should trust: this certificate, and the one before, which a replica may still show. */
  readonly trust: string;
}

/** The Secret's certificate. Undefined: it holds none that can be used for this name. */
export async function readCertificate(
  kube: Kube,
  path: string,
  dnsName: string,
): Promise<{ stored: StoredCertificate | undefined; resourceVersion: string }> {
  const { data = {}, metadata } = await kube.get<SecretObject>(path);
  const [certificate, key, trust] = ['tls.crt', 'tls.key', 'ca.crt'].map((name) =>
    Buffer.from(data[name] ?? '', 'base64').toString(),
  ) as [string, string, string];
  const stored = { certificate, key, trust };
  const isUsable = isValid(stored, dnsName, Date.now());
  return { stored: isUsable ? stored : undefined, resourceVersion: metadata.resourceVersion };
}

/** Writes the certificate, unless somebody else has written since. */
export async function writeCertificate(
  kube: Kube,
  path: string,
  resourceVersion: string,
  { certificate, key, trust }: StoredCertificate,
  signal: AbortSignal,
): Promise<void> {
  const encode = (text: string) => Buffer.from(text).toString('base64');
  const data = { 'tls.crt': encode(certificate), 'tls.key': encode(key), 'ca.crt': encode(trust) };
  await kube.patch(path, 'merge', { metadata: { resourceVersion }, data }, { signal });
}

/** A new certificate for the name, trusted together with the one before. */
export async function makeCertificate(
  dnsName: string,
  before: StoredCertificate | undefined,
  nowMs: number,
): Promise<StoredCertificate> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const made = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=tidegate-operator',
    // Clocks of machines differ.
    notBefore: new Date(nowMs - DAY_MS),
    notAfter: new Date(nowMs + LIFE_DAYS * DAY_MS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([{ type: 'dns', value: dnsName }]),
    ],
  });
  const certificate = `${made.toString('pem')}\n`;
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/.{64}/g, '$&\n').trim()}\n-----END PRIVATE KEY-----\n`;
  return { certificate, key, trust: certificate + (before?.certificate ?? '') };
}

/** Whether it is time for a new one. */
export function isDue({ certificate }: StoredCertificate, nowMs: number): boolean {
  return Date.parse(new X509Certificate(certificate).validTo) - nowMs < REPLACE_DAYS * DAY_MS;
}

function isValid({ certificate, key, trust }: StoredCertificate, dnsName: string, nowMs: number): boolean {
  if (certificate === '' || key === '' || !trust.includes(certificate.trim())) return false;
  try {
    const parsed = new X509Certificate(certificate);
    return parsed.checkHost(dnsName) !== undefined && Date.parse(parsed.validTo) > nowMs;
  } catch {
    return false;
  }
}
