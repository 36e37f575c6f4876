// SPDX-License-Identifier: GPL-2.0

// Go's net/http, ReadRequest and ReadResponse with their bodies read to the end.  Messages come as kind, length and
// bytes on standard input; one line answers each.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
)

var detail = regexp.MustCompile(`".*|[0-9]+|'.*`)

func outcome(err error, rest int, length int) string {
	if err == nil {
		return fmt.Sprintf("ok %d", length-rest)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return "partial"
	}
	return "err " + detail.ReplaceAllString(err.Error(), "")
}

func parse(kind byte, data []byte) string {
	source := bytes.NewReader(data)
	reader := bufio.NewReader(source)
	rest := func() int { return reader.Buffered() + source.Len() }
	if kind == 'q' {
		request, err := http.ReadRequest(reader)
		if err == nil {
			_, err = io.Copy(io.Discard, request.Body)
		}
		return outcome(err, rest(), len(data))
	}
	method := "GET"
	if kind == 'h' {
		method = "HEAD"
	}
	for {
		request, _ := http.NewRequest(method, "http://a/", nil)
		response, err := http.ReadResponse(reader, request)
		if err == nil && response.StatusCode >= 100 && response.StatusCode < 200 &&
			response.StatusCode != 101 {
			continue
		}
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
		}
		return outcome(err, rest(), len(data))
	}
}

func main() {
	input := bufio.NewReader(os.Stdin)
	output := bufio.NewWriter(os.Stdout)
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(input, head); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(input, data); err != nil {
			return
		}
		fmt.Fprintln(output, parse(head[0], data))
		output.Flush()
	}
}
