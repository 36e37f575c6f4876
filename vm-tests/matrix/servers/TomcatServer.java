// SPDX-License-Identifier: GPL-2.0

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;

/** Tomcat as a server of the matrix: HOST PORT BIG_FILE; ../README.md has the paths. */
public final class TomcatServer extends HttpServlet {
	private static final long serialVersionUID = 1L;
	private final transient byte[] big;

	private TomcatServer(byte[] big) {
		this.big = big;
	}

	private static void send(HttpServletResponse response, String kind, int status, byte[] body) throws IOException {
		response.setStatus(status);
		response.setHeader("x-kind", kind);
		if (body != null) {
			response.setContentType("text/plain");
			response.setContentLength(body.length);
			response.getOutputStream().write(body);
		}
	}

	private static byte[] bytes(String text) {
		return text.getBytes(StandardCharsets.US_ASCII);
	}

	private static void parts(HttpServletResponse response, String kind, String first, String second, int pauseMs)
			throws IOException {
		response.setHeader("x-kind", kind);
		response.setContentType("text/plain");
		response.getOutputStream().write(bytes(first));
		response.flushBuffer();
		try {
			Thread.sleep(pauseMs);
		} catch (InterruptedException error) {
			throw new IOException(error);
		}
		response.getOutputStream().write(bytes(second));
	}

	@Override
	protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
		switch (request.getRequestURI()) {
			case "/plain" -> send(response, "plain", 200, bytes("plain body\n"));
			case "/keepalive" -> {
				response.setHeader("Connection", "keep-alive");
				response.setHeader("Keep-Alive", "timeout=20");
				send(response, "keepalive", 200, bytes("kept alive\n"));
			}
			case "/chunked2" -> parts(response, "chunked2", "first part\n", "second part\n", 50);
			case "/close" -> {
				// With this field and no length Tomcat sends no chunks.
				response.setHeader("Connection", "close");
				parts(response, "close", "ended by\n", "close\n", 0);
			}
			case "/204" -> send(response, "204", 204, null);
			case "/304" -> {
				response.setHeader("etag", "\"e\"");
				send(response, "304", 304, null);
			}
			case "/echo" -> send(response, "echo", 200, request.getInputStream().readAllBytes());
			case "/big" -> send(response, "big", 200, big);
			default -> send(response, "404", 404, bytes("not here\n"));
		}
	}

	public static void main(String[] args) throws Exception {
		Tomcat tomcat = new Tomcat();
		Path base = Files.createTempDirectory("tomcat");
		tomcat.setBaseDir(base.toString());
		Connector connector = new Connector();
		connector.setProperty("address", args[0]);
		connector.setPort(Integer.parseInt(args[1]));
		connector.setProperty("maxKeepAliveRequests", "-1");
		tomcat.setConnector(connector);
		Context context = tomcat.addContext("", base.toString());
		Tomcat.addServlet(context, "all", new TomcatServer(Files.readAllBytes(Path.of(args[2])))).addMapping("/");
		tomcat.start();
		tomcat.getServer().await();
	}
}
