// net/http of Go against the gateway. usage: go run client.go URL, in front of an origin that echoes.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{ExpectContinueTimeout: 5 * time.Second, MaxIdleConnsPerHost: 20}}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

func ask(method, url string, body io.Reader, headers ...string) (int, []byte, http.Header) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		fail("%s %s: %v", method, url, err)
	}
	for at := 0; at+1 < len(headers); at += 2 {
		request.Header.Set(headers[at], headers[at+1])
	}
	response, err := client.Do(request)
	if err != nil {
		fail("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		fail("%s %s: body: %v", method, url, err)
	}
	return response.StatusCode, got, response.Header
}

func main() {
	url := os.Args[1]
	if _, got, _ := ask("GET", url+"/bytes/10", nil); string(got) != "abcdefghij" {
		fail("GET: %q", got)
	}
	for _, path := range []string{"/bytes/", "/chunked/", "/close/"} {
		if _, got, _ := ask("GET", url+path+"100000", nil); len(got) != 100000 {
			fail("%s: %d bytes", path, len(got))
		}
	}
	if status, _, headers := ask("HEAD", url+"/bytes/10", nil); status != 200 || headers.Get("Content-Length") != "10" {
		fail("HEAD: %d %v", status, headers)
	}
	if status, _, _ := ask("GET", url+"/status/204", nil); status != 204 {
		fail("204: %d", status)
	}
	large := bytes.Repeat([]byte("go"), 100000)
	if _, got, _ := ask("POST", url+"/e", bytes.NewReader(large)); !bytes.Equal(got, large) {
		fail("POST: %d bytes", len(got))
	}
	// A reader of unknown length is sent chunked.
	if _, got, _ := ask("POST", url+"/e", io.MultiReader(bytes.NewReader(large), strings.NewReader("end"))); len(got) != len(large)+3 {
		fail("chunked POST: %d bytes", len(got))
	}
	if _, got, _ := ask("POST", url+"/e", bytes.NewReader(large), "Expect", "100-continue"); !bytes.Equal(got, large) {
		fail("Expect: %d bytes", len(got))
	}
	var group sync.WaitGroup
	for worker := range 20 {
		group.Add(1)
		go func() {
			defer group.Done()
			for at := range 50 {
				text := fmt.Sprintf("%d-%d", worker, at)
				if _, got, _ := ask("POST", url+"/e", strings.NewReader(text)); string(got) != text {
					fail("%s: %q", text, got)
				}
			}
		}()
	}
	group.Wait()
}
