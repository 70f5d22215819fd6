// SPDX-License-Identifier: Apache-2.0
//! The port of 127.0.0.1 at which the API server is reached from outside of the lab's network namespace.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Forwards connections for as long as the process lives.
pub(crate) fn start(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                // A server that is away shows as a closed connection, as it would without the forwarder.
                if let Err(error) = join(&client, to) {
                    eprintln!("forwarding to {to}: {error}");
                }
            });
        }
    });
}

fn join(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let upstream = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client.try_clone()?);
    // Either end may vanish at any time; the other is told by closing.
    let _ = io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
    let _ = upstream.join();
    Ok(())
}
