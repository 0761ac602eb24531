export class Api { constructor(_o: unknown) {} async start(_p: number, _h: string|undefined): Promise<number> { return 0 } async stop(): Promise<void> {} }
