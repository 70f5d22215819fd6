// SPDX-License-Identifier: Apache-2.0

// Stands in for the image that Gateway API's conformance suite runs in its tests of meshes, whose own is not to be had as source: it takes
// the same flags and prints the lines that the suite reads. Without TLS, which no test asks for.
//
//	client serve --port=N... --grpc=N --tcp=N    answers requests with what they were
//	client URL [--method=M] [-H NAME:VALUE]... [--count=N]    sends requests, and prints answers; grpc://HOST:PORT is a call
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The call that a client makes if it is told none.
const call = "/proto.EchoTestService/Echo"

func main() {
	arguments := os.Args[1:]
	err := errors.New("usage: client serve FLAG..., or client URL FLAG...")
	switch {
	case len(arguments) > 0 && arguments[0] == "serve":
		err = serve(arguments[1:])
	case len(arguments) > 0:
		err = ask(arguments[0], arguments[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	failed := make(chan error)
	if len(arguments) == 0 {
		arguments = []string{"--port=8080"}
	}
	for _, argument := range arguments {
		name, value, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		switch name {
		case "port", "grpc":
			go func() { failed <- server(value).ListenAndServe() }()
		case "tcp":
			go func() { failed <- serveBytes(value) }()
		}
	}
	return <-failed
}

func server(port string) *http.Server {
	answer := func(writer http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		text := said(request, port)
		if !strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
			_, _ = writer.Write(text)
			return
		}
		writer.Header().Set("Content-Type", "application/grpc")
		writer.Header().Set("Trailer", "Grpc-Status")
		_, _ = writer.Write(message(text))
		writer.Header().Set("Grpc-Status", "0")
	}
	return &http.Server{Addr: ":" + port, Handler: http.HandlerFunc(answer), Protocols: protocols(true)}
}

func protocols(http1 bool) *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(http1)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

// A message of a call: not compressed, and its length.
func message(text []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

func said(request *http.Request, port string) []byte {
	var text bytes.Buffer
	hostname, _ := os.Hostname()
	client, _, _ := net.SplitHostPort(request.RemoteAddr)
	fmt.Fprintf(&text, "ServicePort=%s\nHost=%s\nURL=%s\nMethod=%s\nProto=%s\nIP=%s\n", port, request.Host,
		request.URL.RequestURI(), request.Method, request.Proto, client)
	lines(&text, "RequestHeader", request.Header)
	fmt.Fprintf(&text, "Hostname=%s\n", hostname)
	return text.Bytes()
}

func lines(text *bytes.Buffer, name string, header http.Header) {
	names := make([]string, 0, len(header))
	for key := range header {
		names = append(names, key)
	}
	sort.Strings(names)
	for _, key := range names {
		for _, value := range header[key] {
			fmt.Fprintf(text, "%s=%s:%s\n", name, key, value)
		}
	}
}

func serveBytes(port string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(connection, connection)
			_ = connection.Close()
		}()
	}
}

func ask(url string, arguments []string) error {
	method, count, headers := http.MethodGet, 1, http.Header{}
	for at := 0; at < len(arguments); at++ {
		name, value, _ := strings.Cut(arguments[at], "=")
		switch name {
		case "--method":
			method = value
		case "--count":
			number, err := strconv.Atoi(value)
			if err != nil {
				return err
			}
			count = number
		case "-H":
			at++
			if at < len(arguments) {
				key, value, _ := strings.Cut(arguments[at], ":")
				headers.Add(key, value)
			}
		default:
			return fmt.Errorf("unknown argument %q", name)
		}
	}
	client := &http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	host, isCall := strings.CutPrefix(url, "grpc://")
	if isCall {
		method, headers, url = http.MethodPost, callHeaders(headers), "http://"+withCall(host)
		client.Transport = &http.Transport{Protocols: protocols(false)}
	}
	for number := range count {
		if err := one(client, method, url, headers, number, isCall); err != nil {
			return err
		}
	}
	return nil
}

func callHeaders(headers http.Header) http.Header {
	headers.Set("Content-Type", "application/grpc")
	headers.Set("Te", "trailers")
	return headers
}

func withCall(host string) string {
	if strings.Contains(strings.TrimSuffix(host, "/"), "/") {
		return host
	}
	return strings.TrimSuffix(host, "/") + call
}

func one(client *http.Client, method, url string, headers http.Header, number int, isCall bool) error {
	var body io.Reader
	if isCall {
		body = bytes.NewReader(message(nil))
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	request.Header = headers.Clone()
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
		request.Header.Del("Host")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	status := response.StatusCode
	if isCall {
		answer = answer[min(len(answer), 5):]
		said := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
		if said != "0" {
			return fmt.Errorf("the call failed: status %q", said)
		}
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "StatusCode=%d\n", status)
	lines(&text, "ResponseHeader", response.Header)
	text.Write(answer)
	for line := range strings.Lines(text.String()) {
		fmt.Printf("[%d] %s\n", number, strings.TrimRight(line, "\n"))
	}
	fmt.Println()
	return nil
}
