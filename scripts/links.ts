// Links: finds those between pages of this repository that lead nowhere, to a file or to a heading.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/** Every link of every page that leads nowhere, as `page: link`. */
export function brokenLinks(root: string): string[] {
  const pages = execFileSync('git', ['ls-files', '*.md'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((page) => page !== '' && existsSync(join(root, page)));
  return pages.flatMap((page) =>
    linksOf(textOf(root, page))
      .filter((link) => !leadsSomewhere(root, page, link))
      .map((link) => `${page}: ${link}`),
  );
}

/** Where the links of a page lead, those to other sites left out. */
function linksOf(text: string): string[] {
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link = '']) => link)
    .filter((link) => !/^[a-z]+:/.test(link));
}

function leadsSomewhere(root: string, page: string, link: string): boolean {
  const [path = '', heading = ''] = link.split('#');
  const target = path === '' ? page : normalize(join(dirname(page), path));
  if (!existsSync(join(root, target))) return false;
  return heading === '' || !target.endsWith('.md') || anchorsOf(textOf(root, target)).has(heading);
}

/** What GitHub makes of the headings of a page; of two that are the same, the second gets `-1`. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of text.matchAll(/^#+ (.+)$/gm)) {
    const shown = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const anchor = shown.replace(/[^\p{L}\p{N}_\- ]/gu, '').replaceAll(' ', '-');
    let number = 0;
    while (anchors.has(number === 0 ? anchor : `${anchor}-${number}`)) number++;
    anchors.add(number === 0 ? anchor : `${anchor}-${number}`);
  }
  return anchors;
}

/** A page without its blocks of code, in which `#` and brackets mean other things. */
function textOf(root: string, page: string): string {
  return readFileSync(join(root, page), 'utf8').replace(/^```.*?^```/gms, '');
}
