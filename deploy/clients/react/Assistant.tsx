// The assistant in React: what runs, a line to type commands in, how one goes on and its answer.
// `npm install react react-dom socket.io-client`, then <Assistant /> anywhere in the page.

import { type FormEvent, useEffect, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";

/** Whether a part of the assistant serves. */
export type Running = "running" | "stopped";

/** What `get_status` tells. */
export interface Services {
  vision: Running;
  language: Running;
  command: Running;
}

/** How the command of anybody in the space goes on. */
export interface Progress {
  operation: string;
  status: "idle" | "running" | "processing" | "completed" | "error";
  message: string;
  /** 0 to 100 */
  progress: number;
}

/** What a command brought: its worker decides. */
export type Result = Record<string, unknown>;

/** Everything the gateway says to an assistant client; more may follow in later versions. */
export type Message =
  | { type: "status_update"; data: Services | Progress }
  | { type: "command_response"; data: Result }
  | { type: "error"; data: { message: string; code: string } };

/** Everything a client may ask. */
export type Request =
  | { method: "get_status"; params: Record<string, never> }
  | { method: "execute_command"; params: { command: string } };

interface Heard {
  rpc_response: (message: Message) => void;
}

interface Said {
  rpc: (request: Request, answer: (message: Message) => void) => void;
}

/** What `useAssistant` knows at the moment. */
export interface State {
  connected: boolean;
  services?: Services;
  progress?: Progress;
  /** The last answer to a command of our own, also where it is an error. */
  answer?: Message;
}

const isProgress = (data: Services | Progress): data is Progress => "operation" in data;

/** A connection as long as the component lives. It comes back by itself; what to run is up to the one who calls `run`. */
export function useAssistant(address: string): State & { run: (command: string) => void } {
  const [state, setState] = useState<State>({ connected: false });
  const socket = useRef<Socket<Heard, Said> | undefined>(undefined);

  useEffect(() => {
    const add = (more: Partial<State>) => setState((known) => ({ ...known, ...more }));
    const hear = (message: Message) => {
      if (message.type !== "status_update") return;
      add(isProgress(message.data) ? { progress: message.data } : { services: message.data });
    };
    // the path is the namespace; the transport finds /socket.io/ itself
    const own: Socket<Heard, Said> = io(address, { transports: ["websocket"] });
    socket.current = own;
    own.on("connect", () => {
      add({ connected: true });
      own.emit("rpc", { method: "get_status", params: {} }, hear);
    });
    own.on("disconnect", () => add({ connected: false }));
    own.on("rpc_response", hear);
    return () => {
      own.disconnect();
    };
  }, [address]);

  const run = (command: string) => {
    // with a callback the answer comes to us alone, and exactly one comes
    socket.current?.emit("rpc", { method: "execute_command", params: { command } }, (answer) =>
      setState((known) => ({ ...known, answer })),
    );
  };
  return { ...state, run };
}

/** The panel. */
export function Assistant({ address = "http://localhost:8000/ws" }: { address?: string }) {
  const { connected, services, progress, answer, run } = useAssistant(address);
  const [command, setCommand] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    run(command);
  };
  return (
    <section aria-label="assistant">
      <p role="status">{connected ? "connected" : "not connected"}</p>
      {services && (
        <ul>
          {Object.entries(services).map(([name, running]) => (
            <li key={name}>
              {name}: {running}
            </li>
          ))}
        </ul>
      )}
      <form onSubmit={submit}>
        <input aria-label="command" value={command} onChange={(event) => setCommand(event.target.value)} />
        <button disabled={!connected || command === ""}>Run</button>
      </form>
      {progress && <progress max={100} value={progress.progress} title={progress.message} />}
      {answer?.type === "error" && <p role="alert">{answer.data.message}</p>}
      {answer?.type === "command_response" && <pre>{JSON.stringify(answer.data, null, 2)}</pre>}
    </section>
  );
}
