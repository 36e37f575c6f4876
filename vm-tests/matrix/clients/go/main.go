// SPDX-License-Identifier: GPL-2.0

// Go's net/http as a client of the matrix; ../../README.md has the arguments and the output.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

type line struct {
	Via     string            `json:"via"`
	Kind    string            `json:"kind"`
	Status  int               `json:"status"`
	Length  int               `json:"length"`
	Crc     uint32            `json:"crc"`
	Headers map[string]string `json:"headers"`
	Error   *string           `json:"error"`
	Ms      int64             `json:"ms"`
}

func ask(client *http.Client, url string, words []string, big []byte, out *line) error {
	length, err := strconv.Atoi(words[3])
	if err != nil {
		return err
	}
	var body io.Reader
	if length > 0 {
		body = bytes.NewReader(big[:length])
	}
	req, err := http.NewRequest(words[1], url+words[2], body)
	if err != nil {
		return err
	}
	switch words[4] {
	case "expect":
		req.Header.Set("Expect", "100-continue")
	case "close":
		req.Close = true
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out.Status = res.StatusCode
	for _, name := range []string{"content-type", "content-length", "x-kind", "etag"} {
		if value := res.Header.Get(name); value != "" {
			out.Headers[name] = value
		}
	}
	got, err := io.ReadAll(res.Body)
	out.Length, out.Crc = len(got), crc32.ChecksumIEEE(got)
	return err
}

func main() {
	if len(os.Args) < 5 {
		log.Fatal("LIMIT_MS BIG_FILE REQUESTS NAME=URL...")
	}
	limit, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	big, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for _, target := range os.Args[4:] {
		via, url, _ := strings.Cut(target, "=")
		// A transport of its own: connections are not carried from one target to the next.
		client := &http.Client{
			Timeout:   time.Duration(limit) * time.Millisecond,
			Transport: &http.Transport{ExpectContinueTimeout: time.Duration(limit) * time.Millisecond},
		}
		for _, request := range strings.Split(os.Args[3], ";") {
			words := strings.Split(request, ",")
			out := line{Via: via, Kind: words[0], Headers: map[string]string{}}
			begin := time.Now()
			if err := ask(client, url, words, big, &out); err != nil {
				text := err.Error()
				out.Error = &text
			}
			out.Ms = time.Since(begin).Milliseconds()
			text, _ := json.Marshal(out)
			fmt.Println(string(text))
		}
	}
}
