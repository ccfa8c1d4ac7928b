import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface SocketPair {
  /** The end that the code under test gets. */
  near: Socket;
  /** The end that the test speaks from. */
  far: Socket;
  close: () => void;
}

/** Two connected UNIX sockets. */
export async function socketPair(): Promise<SocketPair> {
  const folder = mkdtempSync(join(tmpdir(), 'vsmmu-test-'));
  const path = join(folder, 's');
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  const accepted = new Promise<Socket>((resolve) => {
    server.once('connection', resolve);
  });
  const near = connect(path);
  const far = await accepted;
  server.close();
  rmSync(folder, { recursive: true });
  far.on('error', () => {});
  return {
    near,
    far,
    close: () => {
      near.destroy();
      far.destroy();
    },
  };
}

/** A peer that answers each line it gets; `answer` returns the text to send, or nothing. */
export function answerLines(far: Socket, answer: (line: string) => string | undefined): string[] {
  const seen: string[] = [];
  let pending = '';
  far.setEncoding('utf8').on('data', (text: string) => {
    pending += text;
    const lines = pending.split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) {
      seen.push(line);
      const reply = answer(line);
      if (reply !== undefined) far.write(reply);
    }
  });
  return seen;
}
