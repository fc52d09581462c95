//! The floor of a fan-out: a process that does nothing but write what NATS tells it to Socket.IO clients.
//!
//! It speaks as much of the handshake as the bench's own client asks for and reads nothing afterwards; it has no queue,
//! no history, no metrics. What a delivery costs it is what the kernel asks for a write to a socket.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Outcome;
use crate::servers::{Server, announced};
use crate::socket::{ACCEPT, PATIENCE, TEXT, find};

/// What it is told on.
pub(crate) const SUBJECT: &str = "bench.bare";

/// Starts this program as that process.
pub(crate) async fn start(nats: &str) -> Outcome<Server> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--bare", nats])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    announced(child).await
}

/// Is that process, until it is killed.
pub(crate) async fn serve(nats: &str) -> Outcome<()> {
    let bus = async_nats::connect(nats).await?;
    let mut told = bus.subscribe(SUBJECT).await?;
    bus.flush().await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let (come, mut coming) = mpsc::channel(64);
    let mut clients: Vec<TcpStream> = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, come) = (accepted?.0, come.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = timeout(PATIENCE, greet(stream)).await {
                        let _ = come.send(stream).await;
                    }
                });
            }
            stream = coming.recv() => clients.extend(stream),
            message = told.next() => {
                let body = message.ok_or("NATS is gone")?.payload;
                let mut frame = Vec::new();
                unmasked(&mut frame, &[br#"42/ws,["rpc_response",{"type":"bench","data":"#, &body[..], b"}]"]);
                for client in &mut clients {
                    let written = client.try_write(&frame).unwrap_or(0);
                    client.write_all(frame.get(written..).unwrap_or_default()).await?;
                }
            }
        }
    }
}

/// Upgrades a client and lets it into the namespace.
async fn greet(mut stream: TcpStream) -> Outcome<TcpStream> {
    stream.set_nodelay(true)?;
    let mut inbox = Vec::new();
    while find(&inbox, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut inbox).await? == 0 {
            return Err("gone".into());
        }
    }
    let mut out = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes();
    unmasked(&mut out, &[b"0{}"]);
    unmasked(&mut out, &[b"40/ws,{}"]);
    stream.write_all(&out).await?;
    Ok(stream)
}

/// Appends a text message as a server frames it.
fn unmasked(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x80 | TEXT);
    match len {
        0..=125 => out.push(len as u8),
        _ => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
