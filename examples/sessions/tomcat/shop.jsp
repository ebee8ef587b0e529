<%@ page contentType="text/plain" session="false" trimDirectiveWhitespaces="true" %>
<%
  // A shop that counts: ?do=login&user=U, ?do=count, ?do=who. Without a session it answers 401 and opens none.
  String what = request.getParameter("do");
  HttpSession own = request.getSession("login".equals(what));
  if ("login".equals(what)) {
    own.setAttribute("user", request.getParameter("user"));
    own.setAttribute("count", 0);
    // What a session holds beside: a shopping cart of 1 KiB that seldom changes.
    own.setAttribute("cart", "x".repeat(1024));
  }
  Integer count = own == null ? null : (Integer) own.getAttribute("count");
  if (count == null) {
    response.setStatus(401);
  } else if ("count".equals(what)) {
    count = count + 1;
    own.setAttribute("count", count);
  }
%>
server=<%= System.getProperty("fleet.server") %> user=<%= count == null ? "nobody" : own.getAttribute("user") %> count=<%= count %>
