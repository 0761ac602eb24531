// The version: what package.json says.

import packageJson from '../../package.json' with { type: 'json' };

/** As `X.Y.Z`. */
export const version = packageJson.version;
