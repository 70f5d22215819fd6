// SPDX-License-Identifier: Apache-2.0
//! The request for `/hello`, by which a probe checks that another node's agent or health endpoint responds.

use futures::future::{Either, select};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Path of the request.
pub(crate) const PATH: &str = "/hello";

/// From connecting to the response head; long enough for two lost segments.
const TOTAL: Duration = Duration::from_secs(5);

/// Makes the request; returns how long it took, including the connection, or why it failed.
pub(crate) async fn ask(address: SocketAddr) -> Result<Duration, String> {
    let start = Instant::now();
    let why = match timeout(TOTAL, exchange(address)).await {
        Ok(Ok(response)) if response.status() == StatusCode::OK => return Ok(start.elapsed()),
        Ok(Ok(response)) => format!("status {}", response.status()),
        Ok(Err(why)) => why,
        Err(_) => "Connection timed out".to_owned(),
    };
    Err(format!("Get \"http://{address}{PATH}\": {why}"))
}

async fn exchange(address: SocketAddr) -> Result<Response<Incoming>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| crate::reason(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let request = Request::get(PATH).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    // The connection ends with this function, whatever the other side might still send. It may also end by itself just
    // as the response arrives.
    match select(pin!(sender.send_request(request)), pin!(connection)).await {
        Either::Left((response, _)) => response.map_err(|error| broken(&error)),
        Either::Right((ended, response)) => response.await.map_err(|error| broken(&ended.err().unwrap_or(error))),
    }
}

fn broken(error: &hyper::Error) -> String {
    statedb::with_causes(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Asks a server that answers each request with this.
    async fn ask_one_that_says(answer: &'static str) -> Result<Duration, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        ask(address).await.map_err(|why| why.replace(&address.to_string(), "there"))
    }

    #[tokio::test]
    async fn only_status_200_is_an_answer() {
        assert!(ask_one_that_says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_ok());
        let why = ask_one_that_says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap_err();
        assert_eq!(why, "Get \"http://there/hello\": status 404 Not Found");
        let why = ask_one_that_says("what?\r\n\r\n").await.unwrap_err();
        assert!(why.contains("invalid HTTP version"), "{why}");
        assert!(ask_one_that_says("").await.is_err());
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_without_numbers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(address).await.unwrap_err(), format!("Get \"http://{address}/hello\": Connection refused"));
    }
}
