import { createServer, type Server, type Socket } from 'node:net';

/**
 * Listens on a UNIX socket for the one connection that QEMU makes at start. As we listen before QEMU starts, nobody has
 * to try again and again.
 */
export class SocketListener {
  readonly connection: Promise<Socket>;
  readonly #server: Server;
  #accepted: Socket | undefined;

  private constructor(server: Server) {
    this.#server = server;
    this.connection = new Promise((resolve) => {
      server.once('connection', (socket) => {
        this.#accepted = socket;
        server.close();
        resolve(socket);
      });
    });
  }

  static async listen(path: string): Promise<SocketListener> {
    const server = createServer();
    const listener = new SocketListener(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    return listener;
  }

  /** Ends listening and the connection, if there is one. */
  close(): void {
    this.#server.close();
    this.#accepted?.destroy();
  }
}
