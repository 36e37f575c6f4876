// SPDX-License-Identifier: GPL-2.0

// Go's net/http as a server of the matrix: HOST PORT BIG_FILE; ../../README.md has the paths.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("HOST PORT BIG_FILE")
	}
	big, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	send := func(kind string, status int, body []byte, more ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("X-Kind", kind)
			if body != nil {
				h.Set("Content-Type", "text/plain")
				h.Set("Content-Length", strconv.Itoa(len(body)))
			}
			for i := 0; i+1 < len(more); i += 2 {
				h.Set(more[i], more[i+1])
			}
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				w.Write(body)
			}
		}
	}
	http.HandleFunc("/plain", send("plain", 200, []byte("plain body\n")))
	http.HandleFunc("/keepalive", send("keepalive", 200, []byte("kept alive\n"),
		"Connection", "keep-alive", "Keep-Alive", "timeout=5"))
	http.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload; as=style")
		w.WriteHeader(http.StatusEarlyHints)
		send("early", 200, []byte("after 103\n"))(w, r)
	})
	parts := func(w http.ResponseWriter, kind, first, second string, pause time.Duration) {
		w.Header().Set("X-Kind", kind)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(200)
		io.WriteString(w, first)
		w.(http.Flusher).Flush()
		time.Sleep(pause)
		io.WriteString(w, second)
	}
	http.HandleFunc("/chunked2", func(w http.ResponseWriter, r *http.Request) {
		parts(w, "chunked2", "first part\n", "second part\n", 50*time.Millisecond)
	})
	http.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		// net/http's way to ask for a body without chunks: the connection ends it.
		w.Header().Set("Transfer-Encoding", "identity")
		w.Header().Set("Connection", "close")
		parts(w, "close", "ended by\n", "close\n", 0)
	})
	http.HandleFunc("/204", send("204", 204, nil))
	http.HandleFunc("/304", send("304", 304, nil, "Etag", `"e"`))
	http.HandleFunc("/404", send("404", 404, []byte("not here\n")))
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		send("echo", 200, body)(w, r)
	})
	http.HandleFunc("/big", send("big", 200, big))
	log.Fatal(http.ListenAndServe(os.Args[1]+":"+os.Args[2], nil))
}
