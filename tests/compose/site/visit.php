<?php
// Counts visits in a file that all instances share, under its lock.
$file = fopen('/srv/data/visits', 'c+');
flock($file, LOCK_EX);
$visits = (int) stream_get_contents($file) + 1;
rewind($file);
fwrite($file, (string) $visits);
fclose($file);
touch('/srv/data/by-' . gethostname());
echo $visits;
